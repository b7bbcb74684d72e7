"""Dots are where the keypoints are."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jokr_rt.keypoints import draw_keypoints, keypoint_colours


def test_a_dot_is_centred_on_its_keypoint() -> None:
    """The pixel whose centre is (x, y) has the colour; x goes right and y down."""
    rgb = np.full((96, 192, 3), 100, np.uint8)
    drawn = draw_keypoints(rgb, np.array([[0.5, -0.5], [-1 + 1 / 192, 1 - 1 / 96]], np.float32))
    first, second = keypoint_colours(2)
    ys, xs = np.nonzero((drawn == first).all(-1))
    assert (xs.mean() + 0.5, ys.mean() + 0.5) == pytest.approx((144, 24), abs=0.01)
    assert tuple(drawn[95, 0]) == tuple(second)
    assert tuple(drawn[50, 50]) == (100, 100, 100)
    assert (rgb == 100).all()  # a copy was drawn on


def test_edges_are_smooth_and_black() -> None:
    white = np.full((256, 256, 3), 255, np.uint8)
    row = draw_keypoints(white, np.zeros((1, 2), np.float32))[128, 128:].astype(int)
    assert tuple(row[0]) == tuple(keypoint_colours(1)[0])
    assert row.sum(1).min() == 0  # the ring
    assert len({tuple(pixel) for pixel in row}) > 3  # and what lies between dot, ring and picture


@given(
    st.lists(st.tuples(*[st.floats(-5, 5, width=32)] * 2), min_size=1, max_size=8),
    st.integers(1, 70),
    st.integers(1, 70),
)
def test_any_keypoints_in_any_picture(points: list[tuple[float, float]], height: int, width: int) -> None:
    rgb = np.full((height, width, 3), 7, np.uint8)
    drawn = draw_keypoints(rgb, np.array(points, np.float32))
    assert drawn.shape == rgb.shape
    if all(abs(x) > 3 and abs(y) > 3 for x, y in points) and min(height, width) > 10:
        assert (drawn == rgb).all()


def test_colours_are_told_apart() -> None:
    colours = keypoint_colours(10).astype(int)
    distances = np.abs(colours[:, None] - colours[None]).sum(-1) + 1000 * np.eye(10, dtype=int)
    assert distances.min() > 60
