"""Keypoints (K, 2) as (x, y) in [-1, 1], cell centres as `align_corners=False` has them. Pure numpy."""

import colorsys
from functools import cache

import numpy as np
from numpy.typing import NDArray


def draw_keypoints(rgb: NDArray[np.uint8], keypoints: NDArray[np.float32]) -> NDArray[np.uint8]:
    """A copy of a picture (H, W, 3) with a coloured dot, edged in black, on each keypoint (K, 2).

    The k-th colour is always the same. What lies outside the picture is cut off; smooth edges.
    """
    canvas = rgb.astype(np.float32)
    height, width = rgb.shape[:2]
    radius = max(2.0, min(height, width) / 48)
    centres = (keypoints.astype(np.float64) + 1) * (width / 2, height / 2) - 0.5
    for (x, y), colour in zip(centres, keypoint_colours(len(keypoints)), strict=True):
        for reach, ink in ((radius + max(1.0, radius / 3), np.zeros(3)), (radius, colour.astype(float))):
            _blend_disc(canvas, x, y, reach, ink)
    return np.rint(canvas).astype(np.uint8)


@cache
def keypoint_colours(count: int) -> NDArray[np.uint8]:
    """(count, 3) uint8 RGB: hues evenly apart, every other one darker."""
    shades = [colorsys.hsv_to_rgb(index / count, 0.9, (1.0, 0.75)[index % 2]) for index in range(count)]
    return np.rint(np.array(shades) * 255).astype(np.uint8)


def _blend_disc(canvas: NDArray[np.float32], x: float, y: float, radius: float, ink: NDArray[np.floating]) -> None:
    """Paint a disc whose edge fades over one pixel, in place."""
    rows, columns = (slice(max(0, int(at - radius - 1)), max(0, int(at + radius + 3))) for at in (y, x))
    window = canvas[rows, columns]
    ys, xs = np.mgrid[rows, columns][:, : window.shape[0], : window.shape[1]]
    cover = np.clip(radius + 0.5 - np.hypot(xs - x, ys - y), 0, 1)[..., None]
    window += (cover * (ink - window)).astype(np.float32)
