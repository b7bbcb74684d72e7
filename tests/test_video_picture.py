"""Letterbox geometry, and masks."""

from fractions import Fraction
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from jokr_rt.frame import Frame
from jokr_rt.video import letterbox, letterbox_box, open_masks, open_video
from tests import clips
from tests.tolerances import LEVELS


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(16, 1024))
def test_letterbox_box_keeps_aspect_and_centre(width: int, height: int, size: int) -> None:
    x, y, box_width, box_height = letterbox_box(width, height, size)
    assert max(box_width, box_height) == size
    scale = size / max(width, height)
    for side, boxed in ((width, box_width), (height, box_height)):
        assert abs(boxed - side * scale) <= 0.5 or boxed == 1
    for start, boxed in ((x, box_width), (y, box_height)):
        assert start >= 0
        assert 0 <= size - boxed - 2 * start <= 1


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 200), st.integers(2, 200), st.integers(16, 96))
def test_letterbox_draws_only_inside_the_box(width: int, height: int, size: int) -> None:
    source = Frame(np.full((height, width, 3), (200, 120, 40), np.uint8), 3, Fraction(1, 7))
    frame = letterbox(source, size)
    assert (frame.pts, frame.time_base) == (3, Fraction(1, 7))
    x, y, box_width, box_height = letterbox_box(width, height, size)
    inside = np.zeros((size, size), bool)
    inside[y : y + box_height, x : x + box_width] = True
    assert frame.rgb.shape == (size, size, 3)
    assert not frame.rgb[~inside].any()
    assert np.abs(frame.rgb[inside].astype(int) - (200, 120, 40)).max() <= LEVELS


def test_letterbox_leaves_a_fitting_frame_alone() -> None:
    frame = Frame(clips.picture(32, 32), 0, Fraction(1, 10))
    assert letterbox(frame, 32) is frame


def test_making_a_picture_smaller_averages_and_does_not_pick() -> None:
    stripes = np.zeros((128, 128, 3), np.uint8)
    stripes[:, ::2] = 255
    small = letterbox(Frame(stripes, 0, Fraction(1, 10)), 32).rgb[4:-4, 4:-4]
    assert np.abs(small.astype(int) - 127.5).max() <= 8  # picking pixels would give 0 or 255


def test_masks_from_a_video_are_brightness_above_half(tmp_path: Path) -> None:
    shades = [0, 100, 124, 132, 160, 255]
    pictures = [np.full((48, 64, 3), shade, np.uint8) for shade in shades]
    path = clips.video(tmp_path / "masks.mp4", pictures=pictures, count=6)
    with open_masks(path) as masks:
        planes = list(masks)
        assert not masks.has_alpha
    assert [bool(plane.all()) for plane in planes] == [False, False, False, True, True, True]
    assert [bool(plane.any()) for plane in planes] == [False, False, False, True, True, True]
    assert planes[0].dtype == np.bool_
    assert planes[0].shape == (48, 64)


def test_masks_are_letterboxed_as_frames_are(tmp_path: Path) -> None:
    half = np.zeros((48, 64), np.uint8)
    half[:, 32:] = 255
    (mask,) = open_masks(clips.folder(tmp_path / "masks", [half]), size=32)
    expected = np.zeros((32, 32), bool)
    expected[4:28, 16:] = True
    assert (mask == expected).all()


def test_masks_from_the_alpha_channel_of_frames(tmp_path: Path) -> None:
    alpha = np.zeros((48, 64, 1), np.uint8)
    alpha[12:36, 16:48] = 255
    folder = clips.folder(tmp_path / "frames", [np.concatenate([clips.picture(), alpha], axis=2)] * 2)
    with open_video(folder) as source, open_masks(folder) as masks:
        assert source.has_alpha
        clips.assert_corners(next(source).rgb, clips.CORNERS, levels=0)
        assert (next(masks) == (alpha[..., 0] > 0)).all()


def test_masks_from_the_alpha_channel_of_webm(tmp_path: Path) -> None:
    path = clips.webm_with_alpha(tmp_path / "clip.webm", count=3)
    planes = list(open_masks(path))
    expected = np.zeros((48, 64), bool)
    expected[12:36, 16:48] = True
    assert len(planes) == 3
    assert (planes[2] == expected).mean() > 0.98  # the edge is coded with loss


def test_masks_stored_as_opaque_rgba_are_brightness(tmp_path: Path) -> None:
    white = np.zeros((8, 8, 4), np.uint8)
    white[..., 3] = 255
    white[2:6, 2:6] = 255
    (mask,) = open_masks(clips.folder(tmp_path / "masks", [white]))
    assert (mask == (white[..., 0] > 0)).all()
