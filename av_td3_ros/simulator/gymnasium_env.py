"""
The embedded simulator as a Gymnasium environment, for comparison with other learners.

`gymnasium.make('av_td3_ros.simulator.gymnasium_env:AvTd3-v0')`; after an import of this module,
`gymnasium.make('AvTd3-v0')` (Gymnasium 1.0 dropped entry points for environments).
"""
from __future__ import annotations

import dataclasses
from typing import Any

import cv2
import gymnasium
import numpy as np
from numpy.typing import NDArray

from av_td3_ros.simulator.drive import Drive, DriveSettings
from av_td3_ros.simulator.view.window import Window

NAME = 'AvTd3-v0'
Observation = dict[str, NDArray[Any]]


class AvTd3Env(gymnasium.Env[Observation, NDArray[np.float32]]):
    """
    Drive routes from camera and state, over exactly the code that the nodes use.

    Observation: image uint8 (frames, size, size), newest last; state float32 (3 + 2n,), n
    waypoints. Action float32 (2,): steer (+ = left) and acceleration in [-1, 1]. `info` holds the
    ending's reason and, with the last step, the episode's metrics. A route completed or left, a
    crash or standing still terminates; only the time limit truncates. Render mode human shows
    each step in a window, no faster than it would take.
    """

    metadata = {'render_modes': ['human', 'rgb_array'], 'render_fps': 20}  # noqa: RUF012

    def __init__(self, settings: DriveSettings | None = None, render_mode: str | None = None
                 ) -> None:
        """
        Take settings and how to render.

        Raises ValueError for an unknown render mode, DependencyNotInstalled for a window without
        pygame.
        """
        if render_mode not in (None, *self.metadata['render_modes']):
            raise ValueError(f'render_mode = {render_mode!r}: give one of '
                             f'{self.metadata["render_modes"]} or None')
        s = self._settings = settings or DriveSettings()
        self.render_mode = render_mode
        rate = 1.0 / s.world.fixed_delta_seconds
        self.metadata = {**self.metadata, 'render_fps': round(rate)}
        self._window = Window(NAME, rate) if render_mode == 'human' else None
        shape = (s.frame.count, s.frame.size, s.frame.size)
        self.observation_space: Any = gymnasium.spaces.Dict({
            'image': gymnasium.spaces.Box(0, 255, shape, np.uint8),
            'state': gymnasium.spaces.Box(-np.inf, np.inf, (s.driving.state_size,), np.float32)})
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
        self._drive: Drive | None = None
        self._index = -1

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None
              ) -> tuple[Observation, dict[str, Any]]:
        """
        Begin the next episode; with a seed, the first one of another sequence.

        `options` may name an `episode` by its index. Raises ValueError for an unknown option, a
        map that cannot be driven or an episode that cannot be planned.
        """
        super().reset(seed=seed)
        options = dict(options or {})
        if seed is not None or self._drive is None:
            start = self._settings.episodes.seed if seed is None else seed
            settings = dataclasses.replace(self._settings, episodes=dataclasses.replace(
                self._settings.episodes, seed=start))
            self._drive, self._index = Drive(settings, start), -1
        self._index = int(options.pop('episode', self._index + 1))
        if options:
            raise ValueError(f'reset option {next(iter(options))!r} is unknown; there is: episode')
        self._drive.begin(self._index)
        self._show()
        return self._observation(), {'episode': self._index}

    def step(self, action: NDArray[np.float32]
             ) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Act for one camera frame; raises RuntimeError outside an episode."""
        if self._drive is None:
            raise RuntimeError('no episode yet: call reset')
        step = self._drive.act(action)
        self._show()
        info: dict[str, Any] = {'applied': self._drive.applied.copy()}
        if step.is_last:
            info |= {'reason': step.reason, 'metrics': self._drive.summary().to_dict()}
        return (self._observation(), step.reward, step.is_terminal,
                step.is_last and not step.is_terminal, info)

    def render(self) -> Any:
        """
        Return what the front camera sees, uint8 (height, width, 3) RGB.

        None without a render mode, and in mode human, where each step is shown by itself.
        """
        return self._picture() if self.render_mode == 'rgb_array' else None

    def close(self) -> None:
        """Close the window, if there is one."""
        if self._window is not None:
            self._window.close()

    def _show(self) -> None:
        picture = self._picture() if self._window is not None else None
        if self._window is not None and picture is not None:
            self._window.show(picture)

    def _picture(self) -> NDArray[np.uint8] | None:
        """Return the image of the latest step: another one would go on with the pixel noise."""
        snapshot = self._drive.snapshot if self._drive is not None else None
        if snapshot is None or snapshot.image is None:
            return None
        return np.asarray(cv2.cvtColor(snapshot.image, cv2.COLOR_BGRA2RGB), np.uint8)

    def _observation(self) -> Observation:
        assert self._drive is not None and self._drive.step is not None
        return {'image': self._drive.frames, 'state': self._drive.step.state}


if NAME not in gymnasium.registry:
    gymnasium.register(NAME, entry_point=f'{AvTd3Env.__module__}:{AvTd3Env.__name__}')
