"""What is hidden of an observation, to see what a policy drives on."""
from __future__ import annotations

import numpy as np
import numpy.typing as npt

NO_MASK, IMAGE, VECTOR = 'nothing', 'image', 'vector'
MASKS = (NO_MASK, IMAGE, VECTOR)
SPEED_NUMBERS = 1  # the speed comes first in the state vector and is never hidden


def hide(mask: str, frames: npt.NDArray[np.uint8], state: npt.NDArray[np.float32]
         ) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    """
    Return frames and state vector as they look behind a mask; what is given stays as it is.

    'image' blackens every frame, 'vector' zeroes every number but the speed, 'nothing' hides
    nothing.
    """
    if mask == IMAGE:
        return np.zeros_like(frames), state
    if mask == VECTOR:
        hidden = np.zeros_like(state)
        hidden[:SPEED_NUMBERS] = state[:SPEED_NUMBERS]
        return frames, hidden
    return frames, state
