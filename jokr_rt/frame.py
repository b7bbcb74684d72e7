"""One frame of video and its place in time."""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Frame:
    """A decoded picture.

    rgb: (H, W, 3) uint8, 0-255, full range sRGB, upright (rotation already applied).
    pts: presentation time in ticks of `time_base`.
    time_base: seconds per tick.

    Raises TypeError or ValueError where a field breaks this.
    """

    rgb: NDArray[np.uint8]
    pts: int
    time_base: Fraction

    def __post_init__(self) -> None:
        if not isinstance(self.rgb, np.ndarray) or self.rgb.dtype != np.uint8:
            raise TypeError(f"rgb must be a uint8 array, not {getattr(self.rgb, 'dtype', type(self.rgb).__name__)}")
        if self.rgb.ndim != 3 or self.rgb.shape[2] != 3 or 0 in self.rgb.shape:
            raise ValueError(f"rgb must have shape (H, W, 3), not {self.rgb.shape}")
        if self.time_base <= 0:
            raise ValueError(f"time_base must be positive, not {self.time_base}")

    @property
    def pts_seconds(self) -> float:
        """Presentation time in seconds."""
        return float(self.pts * self.time_base)
