"""A window on the screen for pictures, by pygame as Gymnasium's own environments have it."""
from __future__ import annotations

import os
from typing import Any

import numpy as np
from gymnasium.error import DependencyNotInstalled
from numpy.typing import NDArray

PYGAME = '2.6.1'
INVISIBLE = ('dummy', 'offscreen')  # where SDL draws when it finds no screen


class Window:
    """Show picture after picture, no faster than `rate` a second; it opens with the first."""

    def __init__(self, title: str, rate: float, scale: int = 2) -> None:
        """Raise DependencyNotInstalled, which says what to install, without pygame."""
        try:
            import pygame
        except ImportError as error:
            raise DependencyNotInstalled('a window needs pygame: run `pip install '
                                         f'pygame=={PYGAME}`, or render to rgb_array') from error
        self._pygame: Any = pygame
        self.is_closed = False
        self._title, self._rate, self._scale = title, rate, scale
        self._screen: Any = None
        self._clock: Any = None

    def show(self, picture: NDArray[np.uint8]) -> None:
        """
        Show a picture, uint8 (height, width, 3) RGB, and wait until the next one is due.

        Raises RuntimeError where there is no screen.
        """
        pygame = self._pygame
        height, width = picture.shape[:2]
        size = (self._scale * width, self._scale * height)
        if self._screen is None:
            try:
                pygame.display.init()
                self._screen = pygame.display.set_mode(size)
                driver = pygame.display.get_driver()
                if driver in INVISIBLE and os.environ.get('SDL_VIDEODRIVER') != driver:
                    pygame.display.quit()
                    raise pygame.error(f'SDL found none and would draw {driver}')
            except pygame.error as error:
                self._screen = None
                raise RuntimeError(f'no screen for a window ({error}): set DISPLAY, or '
                                   'render to rgb_array (av-td3 drive: --no-window)') from error
            pygame.display.set_caption(self._title)
            self._clock = pygame.time.Clock()
        surface = pygame.surfarray.make_surface(picture.swapaxes(0, 1))
        self._screen.blit(pygame.transform.scale(surface, size), (0, 0))
        # Without a look at them the desktop takes the window for dead.
        self.is_closed |= any(event.type == pygame.QUIT for event in pygame.event.get())
        pygame.display.flip()
        self._clock.tick(self._rate)

    def close(self) -> None:
        """Close the window."""
        if self._screen is not None:
            self._pygame.display.quit()
            self._screen = None
