"""Every measure against a case whose answer is known by arithmetic."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from jokr_rt.evaluation import metrics
from jokr_rt.evaluation.perform import render_heatmaps
from jokr_rt.training import networks
from jokr_rt.training.affine import inverse, transform
from tests.tolerances import EXACT, REWRITE

RANDOM = np.random.default_rng(0)
PICTURES = RANDOM.integers(60, 200, (6, 32, 32, 3)).astype(np.uint8)


def levels(*values: int, size: int = 16) -> np.ndarray:
    """Flat grey frames."""
    return np.stack([np.full((size, size, 3), value, np.uint8) for value in values])


MIRROR = np.array([[-1.0, 0, 0], [0, 1, 0]])


def after(outer: np.ndarray, inner: np.ndarray) -> np.ndarray:
    """The map p -> outer(inner(p)), (2, 3) each."""
    return outer @ np.vstack([inner, [0, 0, 1]])


def affine(degrees: float, scale: float, x: float, y: float) -> np.ndarray:
    angle = np.radians(degrees)
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    return np.array([[cos, -sin, x], [sin, cos, y]])


def test_psnr_of_equal_frames_is_the_cap_and_of_an_offset_what_arithmetic_says():
    assert metrics.psnr_db(PICTURES, PICTURES) == 100
    assert metrics.psnr_db(PICTURES + np.uint8(5), PICTURES) == pytest.approx(20 * math.log10(255 / 5))
    assert metrics.psnr_db(PICTURES, PICTURES + np.uint8(5)) == pytest.approx(20 * math.log10(255 / 5))


def test_psnr_of_noise_is_that_of_its_deviation():
    noise = RANDOM.normal(0, 8, (20, 64, 64, 3)).round()
    drawn = (128 + noise).astype(np.uint8)
    expected = 20 * math.log10(255 / math.sqrt(8**2 + 1 / 12))  # rounding adds a twelfth
    assert metrics.psnr_db(drawn, np.full_like(drawn, 128)) == pytest.approx(expected, abs=0.05)


def test_psnr_of_a_shuffled_order_pools_the_squared_errors():
    true = levels(100, 110, 130)
    mean_square = (30**2 + 0 + 30**2) / 3  # the first and the last exchanged
    assert metrics.psnr_db(true[::-1], true) == pytest.approx(10 * math.log10(255**2 / mean_square))


def test_psnr_looks_only_at_the_region():
    drawn, region = PICTURES.copy(), np.zeros(PICTURES.shape[:3], bool)
    drawn[:, :4] += np.uint8(7)
    region[:, :8] = True
    assert metrics.psnr_db(drawn, PICTURES, region) == pytest.approx(10 * math.log10(255**2 / (7**2 / 2)))
    assert metrics.psnr_db(drawn, PICTURES, ~region) == 100
    with pytest.raises(ValueError, match="no pixel"):
        metrics.psnr_db(drawn, PICTURES, region & ~region)


def test_the_lowest_third_and_the_height_of_a_silhouette():
    shown = np.zeros((3, 12, 12), bool)
    shown[0, 2:8, 3:5] = True  # six rows: the lowest third are two
    shown[1, 9:, 0] = True
    low = metrics.lower_thirds(shown)
    assert [row.nonzero()[0].tolist() for row in low] == [[6, 7], [11], []]
    assert metrics.heights(shown).tolist() == [1, 0.5, 0]
    points = np.full((3, 2, 2), 0.0)
    points[0, :, 1] = (6.5 / 6 - 1, 5.5 / 6 - 1)  # in row 6, in row 5
    assert metrics.share_low(shown, points) == pytest.approx(1 / 6)
    points[0, :, 1] = 1.5  # outside of the frame
    assert metrics.share_low(shown, points) == 0


def test_texture_is_the_difference_of_neighbours_and_ignores_outlines():
    frames = np.zeros((1, 8, 8, 3), np.uint8)
    assert metrics.texture(frames) == 0
    frames[0, 2:6, 2:6] = 100
    assert metrics.texture(frames) == 0
    frames[0, 2:6:2, 2:6] = 130  # every other row is 30 levels brighter: 12 pairs below each other, 12 beside
    assert metrics.texture(frames) == pytest.approx(15)


def test_ssim_is_one_for_equal_frames_and_nothing_for_other_noise():
    assert metrics.ssim(PICTURES, PICTURES) == 1
    assert abs(metrics.ssim(PICTURES, PICTURES[::-1])) < 0.1
    # Flat frames differ in luminance alone: (2 ab + C1) / (a^2 + b^2 + C1), C1 = (0.01 * 255)^2.
    c1 = (0.01 * 255) ** 2
    expected = (2 * 100 * 150 + c1) / (100**2 + 150**2 + c1)
    assert metrics.ssim(levels(100), levels(150)) == pytest.approx(expected, rel=1e-4)


def test_gain_compares_both_on_the_same_pixels():
    true = np.zeros((2, 16, 16, 3), np.uint8)
    true[:, 4:8, 4:8] = 200
    shape = metrics.silhouettes(true)
    ours, theirs = (np.where(true > 0, true - np.uint8(offset), true) for offset in (10, 40))
    assert metrics.gain_db(ours, theirs, true, shape) == pytest.approx(20 * math.log10(4))
    assert metrics.gain_db(theirs, ours, true, shape) == pytest.approx(-20 * math.log10(4))
    assert metrics.gain_db(ours, ours, true, shape) == 0
    # What the baseline draws beside the creature counts: as many pixels again, of error 100, against 16 of error 10.
    stray = ours.copy()
    stray[:, 10:14, 10:14] = 100
    assert metrics.gain_db(ours, stray, true, shape) == pytest.approx(10 * math.log10((10**2 + 100**2) / 10**2))


def test_a_silhouette_is_any_channel_above_the_level():
    frame = np.zeros((1, 2, 2, 3), np.uint8)
    frame[0, 0, 0] = (0, 25, 0)
    frame[0, 1, 1] = 24
    assert metrics.silhouettes(frame).tolist() == [[[True, False], [False, False]]]


@given(st.floats(-180, 180), st.floats(0.5, 2), st.floats(-0.5, 0.5), st.floats(-0.5, 0.5))
def test_keypoints_move_as_in_training(degrees, scale, x, y):
    theta = affine(degrees, scale, x, y)[None]
    points = np.random.default_rng(1).uniform(-1, 1, (1, 5, 2))
    moved = metrics.moved_by(theta, points)
    expected = transform(inverse(torch.from_numpy(theta)), torch.from_numpy(points)).numpy()
    np.testing.assert_allclose(moved, expected, atol=EXACT)
    np.testing.assert_allclose(moved @ theta[0, :, :2].T + theta[0, :, 2], points, atol=EXACT)


def test_a_mirroring_map_moves_keypoints_by_its_inverse():
    theta = after(affine(20, 0.75, 0.1, 0.06), MIRROR)[None]
    points = np.random.default_rng(1).uniform(-1, 1, (1, 5, 2))
    moved = metrics.moved_by(theta, points)
    np.testing.assert_allclose(moved @ theta[0, :, :2].T + theta[0, :, 2], points, atol=EXACT)


def test_a_collapsed_map_moves_keypoints_as_in_training():
    theta, points = affine(0, 0.1, 0.2, 0)[None], np.full((1, 1, 2), 0.4)
    expected = transform(inverse(torch.from_numpy(theta)), torch.from_numpy(points)).numpy()
    np.testing.assert_allclose(metrics.moved_by(theta, points), expected, atol=EXACT)


def test_heatmaps_are_rendered_as_in_training():
    keypoints = RANDOM.uniform(-1.1, 1.1, (3, 4, 2)).astype(np.float32)
    expected = networks.render_heatmaps(torch.from_numpy(keypoints), 32).numpy()
    np.testing.assert_allclose(render_heatmaps(keypoints, 32), expected, atol=REWRITE)


def test_joints_that_depend_linearly_on_keypoints_are_found_exactly():
    keypoints, weights = RANDOM.normal(size=(60, 5, 2)), RANDOM.normal(size=(10, 6))
    joints = (keypoints.reshape(60, 10) @ weights + 0.3).reshape(60, 3, 2)
    fitted = metrics.linear_map(keypoints[:40], joints[:40])
    lengths = np.full(20, 0.5)
    assert metrics.regression_error(fitted, keypoints[40:], joints[40:], lengths) == pytest.approx(0, abs=1e-6)
    shifted = joints[40:] + (0.3, 0.4)  # every joint by 0.5, which is one body length
    assert metrics.regression_error(fitted, keypoints[40:], shifted, lengths) == pytest.approx(1, abs=1e-6)


def test_errors_are_in_lengths_of_their_own_frame():
    predicted, targets = np.zeros((2, 3, 2)), np.array([np.full((3, 2), (0.6, 0.8)), np.full((3, 2), (3.0, 4.0))])
    assert metrics.normalised_error(predicted, targets, np.array([0.5, 2.5])) == pytest.approx(2)
    assert metrics.normalised_error(predicted[0], targets, np.array([0.5, 2.5])) == pytest.approx(2)


def test_domains_apart_are_told_apart():
    poses = RANDOM.normal(size=(4, 80, 3, 2))
    assert metrics.domain_accuracy((poses[0], poses[1] + 9), (poses[2], poses[3] + 9)) == 1
    assert metrics.domain_accuracy((poses[0], poses[1] + 9), (poses[2] + 9, poses[3])) == 0


def test_domains_alike_are_not():
    poses = RANDOM.normal(size=(4, 400, 3, 2))
    assert metrics.domain_accuracy((poses[0], poses[1]), (poses[2], poses[3])) == pytest.approx(0.5, abs=0.06)
    assert metrics.domain_accuracy((poses[0], poses[0]), (poses[1], poses[1])) == 0.5


def test_domains_that_no_line_separates_are_told_apart_by_the_better_classifier():
    angle = RANDOM.uniform(0, 2 * np.pi, (4, 200, 1))
    circles = np.stack([np.cos(angle), np.sin(angle)], axis=-1)  # one within the other
    assert metrics.domain_accuracy((circles[0], 3 * circles[1]), (circles[2], 3 * circles[3])) > 0.98


@pytest.mark.parametrize("around", [0, 175, -170])
def test_affine_errors_are_those_put_in(around):
    true = affine(around, 0.75, 0.1, 0.06)
    assert metrics.affine_errors(true, true) == pytest.approx((0, 0, 0), abs=EXACT)
    assert metrics.affine_errors(affine(around + 10, 0.75, 0.1, 0.06), true) == pytest.approx((10, 0, 0), abs=EXACT)
    assert metrics.affine_errors(affine(around - 10, 0.75, 0.1, 0.06), true) == pytest.approx((10, 0, 0), abs=EXACT)
    found = affine(around, 0.6, 0.1 + 0.06, 0.06 - 0.08)  # a shift of 0.1 half-widths is 5 % of the frame
    assert metrics.affine_errors(found, true) == pytest.approx((0, 20, 5), abs=EXACT)


def test_a_mirrored_map_has_no_scale_where_the_true_one_is_none():
    assert metrics.affine_errors(MIRROR, np.eye(2, 3))[1] == 100
    assert metrics.affine_errors(np.eye(2, 3), MIRROR)[1] == 100


def test_affine_errors_of_mirrored_maps_are_those_put_in():
    true, found = (after(affine(degrees, scale, 0.1, 0.06), MIRROR) for degrees, scale in ((20, 0.75), (30, 0.6)))
    assert metrics.affine_errors(found, true) == pytest.approx((10, 20, 0), abs=EXACT)
    assert metrics.affine_errors(true, true) == pytest.approx((0, 0, 0), abs=EXACT)


def test_iou():
    first, second = np.zeros((3, 4, 4), bool), np.zeros((3, 4, 4), bool)
    first[0, :, :2] = second[0, :, 1:3] = True  # 4 of 12 cells in common
    first[1, 0] = second[1, 0] = True
    assert metrics.iou(first, second) == pytest.approx([1 / 3, 1, 1])


def test_silhouettes_that_stand_move_nothing_and_those_that_leave_everything():
    shown = np.zeros((4, 4, 4), bool)
    shown[:, 0] = True
    assert metrics.silhouette_motion(shown, 2) == 0
    shown[2:] = shown[2:, ::-1]
    assert metrics.silhouette_motion(shown, 2) == 1
    assert metrics.silhouette_motion(shown, 1) == pytest.approx(1 / 3)


def test_acceleration_is_the_second_difference():
    time = np.arange(10.0)[:, None, None]
    assert metrics.acceleration(time * [[1.0, 2.0]]) == 0
    assert metrics.acceleration(0.5 * time**2 * [[0.3, 0.4], [0.0, 0.0]]) == pytest.approx(0.25)  # of 0.5 and 0


def test_flicker_is_the_second_difference_and_does_not_wrap():
    assert metrics.flicker(levels(10, 20, 30, 40)) == 0
    assert metrics.flicker(levels(0, 255, 0, 255)) == 510
    assert metrics.flicker(levels(10, 20, 20)) == 10


def test_share_on_the_silhouette():
    shown = np.zeros((2, 8, 8), bool)
    shown[:, :4] = True  # the upper half
    points = np.array([[(0.0, -0.5), (0.9, -0.01), (0.0, 0.5), (-1.2, -0.5)]] * 2)
    assert metrics.share_on(shown, points) == 0.5
    assert metrics.mean_distance(points, points + (0.03, 0.04)) == pytest.approx(0.05)


def test_a_ratio_to_nothing_is_none():
    assert metrics.ratio(3.0, 2.0) == 1.5
    assert metrics.ratio(3.0, 0.0) is None
