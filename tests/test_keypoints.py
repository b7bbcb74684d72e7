"""Dots are where the keypoints are; smoothing and interpolation do what their formulas say."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from jokr_rt.errors import UsageError
from jokr_rt.keypoints import METHODS, OneEuroFilter, draw_keypoints, interpolate, keypoint_colours, smooth
from tests.tolerances import EXACT

Doubles = NDArray[np.float64]
coordinates = st.floats(-1, 1, width=32)
methods = st.sampled_from(["linear", "cubic"])
cutoffs = st.floats(0.01, 100)
betas = st.floats(0, 100)


@st.composite
def tracks(draw: st.DrawFn, shortest: int = 1) -> tuple[Doubles, Doubles]:
    """Times (T,), up to 4 s apart, and poses (T, 3, 2) in [-1, 1]."""
    count = draw(st.integers(shortest, 8))
    gaps = draw(arrays(np.float64, count, elements=st.floats(1 / 240, 4)))
    return np.cumsum(gaps) + draw(st.floats(-5, 5)), draw(arrays(np.float64, (count, 3, 2), elements=coordinates))


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


@given(tracks(), cutoffs, betas, cutoffs)
def test_smoothing_stays_within_the_range_of_the_poses_so_far(
    timed: tuple[Doubles, Doubles], min_cutoff: float, beta: float, d_cutoff: float
) -> None:
    times, track = timed
    found = smooth(times, track, min_cutoff, beta, d_cutoff)
    assert found.shape == track.shape
    assert (found <= np.maximum.accumulate(track) + EXACT).all()
    assert (found >= np.minimum.accumulate(track) - EXACT).all()
    assert np.array_equal(found[0], track[0])


@given(tracks(), cutoffs, betas)
def test_smoothing_looks_back_only_and_streams(timed: tuple[Doubles, Doubles], min_cutoff: float, beta: float) -> None:
    times, track = timed
    whole = smooth(times, track, min_cutoff, beta)
    half = len(track) // 2 + 1
    assert np.array_equal(smooth(times[:half], track[:half], min_cutoff, beta), whole[:half])
    one_euro = OneEuroFilter(min_cutoff, beta)
    for pose, second, expected in zip(track, times, whole, strict=True):
        assert np.array_equal(one_euro(pose, second), expected)


@given(tracks(), coordinates, methods)
def test_a_creature_that_rests_is_left_alone(timed: tuple[Doubles, Doubles], where: float, method: str) -> None:
    times, track = timed
    still = np.full_like(track, where)
    assert np.array_equal(smooth(times, still), still)
    found = interpolate(times, still, np.linspace(times[0] - 1, times[-1] + 1, 20), method)
    np.testing.assert_allclose(found, where, atol=EXACT)


@given(tracks(), st.floats(-1000, 1000), methods)
def test_only_differences_of_time_count(timed: tuple[Doubles, Doubles], shift: float, method: str) -> None:
    times, track = timed
    at = np.linspace(times[0], times[-1], 9)
    np.testing.assert_allclose(smooth(times + shift, track), smooth(times, track), atol=1e-6)
    moved = interpolate(times + shift, track, at + shift, method)
    np.testing.assert_allclose(moved, interpolate(times, track, at, method), atol=1e-6)


@given(st.lists(st.floats(1 / 240, 0.5), min_size=1, max_size=30), cutoffs)
def test_the_cutoff_is_that_of_a_first_order_low_pass(gaps: list[float], cutoff: float) -> None:
    """Whatever the frame rate: a step at time 0 is answered by 1 - exp(-2 pi f t)."""
    times = np.concatenate([[0], np.cumsum(gaps)])
    step = np.ones((len(times), 1, 2))
    step[0] = 0
    expected = 1 - np.exp(-2 * np.pi * cutoff * times)
    np.testing.assert_allclose(smooth(times, step, cutoff, 0)[:, 0, 0], expected, atol=EXACT)


def wave(hertz: float) -> tuple[Doubles, Doubles]:
    """Four seconds at 30 frames per second."""
    times = np.arange(120) / 30
    return times, np.repeat(np.sin(2 * np.pi * hertz * times), 2).reshape(-1, 1, 2)


def lag(**parameters: float) -> float:
    times, track = wave(1)
    return float(np.abs(smooth(times, track, **parameters) - track).mean())


def test_higher_parameters_follow_closer() -> None:
    assert lag(min_cutoff=0.5, beta=0) > 1.3 * lag(min_cutoff=1, beta=0) > 1.3**2 * lag(min_cutoff=4, beta=0)
    assert lag(min_cutoff=0.5, beta=0.1) > 1.3 * lag(min_cutoff=0.5, beta=1)
    assert lag(min_cutoff=1e6, beta=0) < EXACT


def test_beta_multiplies_the_speed() -> None:
    """Three frames by hand, 0.1 s apart: the speed of the raw values low-passed at 2 Hz, then the cutoff 1 + 3 * it."""

    def alpha(cutoff: float) -> float:
        return float(1 - np.exp(-2 * np.pi * cutoff * 0.1))

    first_speed = alpha(2) * 4.0
    first = alpha(1 + 3 * first_speed) * 0.4
    second_speed = first_speed + alpha(2) * (-1.0 - first_speed)
    second = first + alpha(1 + 3 * abs(second_speed)) * (0.3 - first)
    track = np.array([[[0, 0]], [[0.4, -0.4]], [[0.3, -0.3]]])
    found = smooth([7.0, 7.1, 7.2], track, min_cutoff=1, beta=3, d_cutoff=2)
    np.testing.assert_allclose(found[1:, 0], [[first, -first], [second, -second]], atol=EXACT)


@given(tracks(), st.sampled_from(METHODS))
def test_interpolation_passes_through_the_poses_and_holds_the_ends(timed: tuple[Doubles, Doubles], method: str) -> None:
    times, track = timed
    assert np.array_equal(interpolate(times, track, times, method), track)
    shuffled = np.random.default_rng(0).permutation(len(times))
    assert np.array_equal(interpolate(times, track, times[shuffled], method), track[shuffled])
    outside = interpolate(times, track, [times[0] - 3, times[-1] + 3], method)
    assert np.array_equal(outside, track[[0, -1]])
    assert interpolate(times, track, [], method).shape == (0, 3, 2)


def test_hold_keeps_each_pose_until_the_next() -> None:
    p = np.array([[0.1, 0.5], [-0.3, 0.2], [0.4, -0.1]])
    found = interpolate([0, 1, 3], p[:, None], [0.999, 1, 2.999, 3, 9, -1], "hold")
    assert np.array_equal(found[:, 0], p[[0, 1, 1, 2, 2, 0]])


@given(tracks(2), coordinates, coordinates, methods)
def test_a_steady_movement_is_interpolated_exactly(
    timed: tuple[Doubles, Doubles], start: float, speed: float, method: str
) -> None:
    times, track = timed

    def walk(seconds: Doubles) -> Doubles:
        return np.asarray(np.multiply.outer(seconds, np.full((3, 2), speed)) + start)

    at = np.linspace(times[0], times[-1], 17)
    np.testing.assert_allclose(interpolate(times, walk(times), at, method), walk(at), atol=EXACT)


@given(tracks(3), coordinates)
def test_cubic_is_exact_for_constant_acceleration(timed: tuple[Doubles, Doubles], acceleration: float) -> None:
    times, _ = timed

    def fall(seconds: Doubles) -> Doubles:
        return np.repeat(acceleration * seconds**2 / 2, 2).reshape(-1, 1, 2)

    at = np.linspace(times[0], times[-1], 17)
    np.testing.assert_allclose(interpolate(times, fall(times), at), fall(at), atol=1e-7)


def test_cubic_is_catmull_rom_where_times_are_even_and_linear_is_straight() -> None:
    p = np.array([[0.1, 0.5], [-0.3, 0.2], [0.4, -0.1], [0.2, 0.9]])
    (middle,) = interpolate(np.arange(4), p[:, None], [1.5])
    np.testing.assert_allclose(middle[0], (-p[0] + 9 * p[1] + 9 * p[2] - p[3]) / 16, atol=EXACT)
    (quarter,) = interpolate(np.arange(4), p[:, None], [1.25], "linear")
    np.testing.assert_allclose(quarter[0], 0.75 * p[1] + 0.25 * p[2], atol=EXACT)


def test_keypoints_keep_the_dtype_that_the_graphs_take() -> None:
    track = np.random.default_rng(0).uniform(-1, 1, (4, 10, 2)).astype(np.float32)
    assert smooth(np.arange(4), track).dtype == interpolate(np.arange(4), track, [0.5]).dtype == np.float32


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: OneEuroFilter(min_cutoff=0), "min_cutoff must be a frequency above 0 Hz, not 0"),
        (lambda: OneEuroFilter(d_cutoff=float("nan")), "d_cutoff must be a frequency above 0 Hz, not nan"),
        (lambda: OneEuroFilter(beta=-1), "beta must be 0 or more, not -1"),
        (lambda: smooth([0, 1, 1], np.zeros((3, 2, 2))), "times must increase, but 1.0 s comes after 1.0 s"),
        (lambda: smooth([0, 1], np.zeros((3, 2, 2))), "one time for each pose, and at least one; not 2 for 3"),
        (lambda: interpolate([], np.zeros((0, 2, 2)), [0]), "and at least one; not 0 for 0"),
        (
            lambda: interpolate([0], np.zeros((1, 2, 2)), [0], "spline"),
            "unknown interpolation 'spline'; choose linear, cubic or hold",
        ),
        (lambda: interpolate([0], np.zeros((1, 2)), [0]), "expected a track (T, K, 2) of floats, not float64 (1, 2)"),
        (lambda: interpolate([0], np.zeros((1, 2, 2), int), [0]), "a track (T, K, 2) of floats, not int64"),
        (lambda: interpolate([0], np.zeros((1, 2, 2)), [np.inf]), "times (T,) must hold finite numbers only"),
        (lambda: OneEuroFilter()(np.full((2, 2), np.nan), 0), "a pose (K, 2) of floats must hold finite numbers only"),
        (lambda: OneEuroFilter()(np.zeros((2, 2)), np.nan), "times (T,) must hold finite numbers only"),
    ],
)
def test_what_cannot_be_meant(call: Callable[[], object], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        call()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_stream_that_changes_its_keypoints_or_turns_back() -> None:
    one_euro = OneEuroFilter()
    one_euro(np.zeros((3, 2)), 1.0)
    with pytest.raises(UsageError, match=r"the pose at 2 s has shape \(4, 2\), the last one \(3, 2\)"):
        one_euro(np.zeros((4, 2)), 2.0)
    with pytest.raises(UsageError, match=r"0\.5 s comes after 1\.0 s"):
        one_euro(np.zeros((3, 2)), 0.5)
