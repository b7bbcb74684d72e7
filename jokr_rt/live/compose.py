"""What the creature is shown before: black, a colour, a picture, or the source itself, with soft edges.

The generator draws on black, so that its pictures are as if multiplied with their own opacity (premultiplied alpha),
and "over" needs only the opacity. That is read off the picture: what is darker than `_CLEAR` is empty, what is brighter
than `_SOLID` is creature, and dark spots within a creature are closed.

Source of "over": Porter, Duff, "Compositing digital images", 1984.
"""

import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]
Matte = NDArray[np.float32]
"""(H, W) opacity, 0 to 1."""

_CLEAR, _SOLID = 6, 40  # levels of the brightest channel
_CLOSING = 1 / 64  # of the side: dark spots up to twice this across count as creature


def matte_of(image: Picture, feather: float) -> Matte:
    """Opacity of a creature drawn on black (H, W, 3). feather: width of the soft edge, pixels, inwards."""
    brightness = image.max(axis=2).astype(np.float32)
    matte = np.clip((brightness - _CLEAR) / (_SOLID - _CLEAR), 0, 1)
    radius = max(1, round(min(matte.shape) * _CLOSING))
    closed = -_highest(-_highest(matte, radius), radius)
    return soften(closed, feather)


def soften(matte: Matte, feather: float) -> Matte:
    """The same object with an edge that fades over so many pixels inside it; nothing outside becomes opaque."""
    radius = round(feather / 2)
    if radius < 1:
        return matte
    inner = -_highest(-matte, radius)
    return np.minimum(blur(inner, radius), matte)


def over(image: Picture, background: Picture, feather: float) -> Picture:
    """A creature drawn on black before a background of the same shape (H, W, 3)."""
    if not background.any():
        return image
    whole = matte_of(image, 0)
    soft = soften(whole, feather)
    drawn = image * (soft / np.maximum(whole, 1e-3))[..., None]
    shown = drawn + (1 - soft)[..., None] * background
    return np.minimum(shown + 0.5, 255).astype(np.uint8)


def blur(plane: NDArray[np.float32], radius: int) -> NDArray[np.float32]:
    """Mean over (2 radius + 1)^2 pixels; beyond the picture the edge goes on."""
    for axis in (0, 1):
        padding = [(radius + 1, radius) if axis == each else (0, 0) for each in (0, 1)]
        sums = np.cumsum(np.pad(plane, padding, mode="edge"), axis=axis, dtype=np.float64)
        width = 2 * radius + 1
        ahead, behind = (np.take(sums, range(start, start + plane.shape[axis]), axis) for start in (width, 0))
        plane = ((ahead - behind) / width).astype(np.float32)
    return plane


def _highest(plane: NDArray[np.float32], radius: int) -> NDArray[np.float32]:
    """Maximum over (2 radius + 1)^2 pixels."""
    for axis in (0, 1):
        padding = [(radius, radius) if axis == each else (0, 0) for each in (0, 1)]
        windows = np.lib.stride_tricks.sliding_window_view(np.pad(plane, padding, mode="edge"), 2 * radius + 1, axis)
        plane = windows.max(axis=-1)
    return plane
