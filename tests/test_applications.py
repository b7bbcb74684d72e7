"""Smoothing and interpolation against ground truth; mostly of a perfect retargeter, so that the answers are known."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from jokr_rt import Retargeter
from jokr_rt.bundle import Arrays
from jokr_rt.config import ModelConfig
from jokr_rt.evaluation.applications import measure_application
from jokr_rt.evaluation.metrics import acceleration, flicker, moved_by, psnr_db, silhouettes
from jokr_rt.evaluation.puppets import BROWN, JOINTS, Motion, joints, render, true_theta
from jokr_rt.evaluation.results import Performance
from jokr_rt.keypoints import BETA, D_CUTOFF, MIN_CUTOFF, interpolate, smooth
from jokr_rt.looks import FixedLooks

SHIPPED = Path(__file__).parent.parent / "examples" / "puppets.jokr"
SIZE, RATE = 64, 10.0
TURNED = replace(BROWN, degrees=20.0, scale=0.75, shift=(0.1, 0.06))
THETA = true_theta(BROWN, TURNED).astype(np.float32)
CONFIG = ModelConfig(keypoints=len(JOINTS), size=SIZE, width=1 / 16, extractor_size=64)
PERFECT = 40.0  # dB and more: the truth, but for float32 coordinates and the rounding of a few levels

Keypoints = NDArray[np.float32]


@dataclass(frozen=True)
class Perfect:
    """An engine whose keypoints are joints, whose transformer is the true map, and which draws the turned puppet."""

    name: str = "perfect"

    def run(self, graph: str, inputs: Arrays) -> Arrays:
        if graph == "generator":
            return {"image": draw_true(inputs["warped"])}
        theta = np.repeat(THETA[None], len(inputs["keypoints"]), axis=0)
        return {"theta": theta, "warped": moved_by(theta, inputs["keypoints"])}


def draw_true(poses: NDArray[np.floating]) -> NDArray[np.uint8]:
    pictures = (render(TURNED, pose.astype(np.float64), SIZE) for pose in poses)
    return np.stack([np.rint(rgb * (mask[..., None] / 255)).astype(np.uint8) for rgb, mask in pictures])


def perform(motion: Motion, jitter: float = 0.0) -> Performance:
    """What `evaluate` knows of a walk; jitter: standard deviation of noise on the keypoints, half-widths."""
    there, here = joints(BROWN, motion), joints(TURNED, motion)
    noise = np.random.default_rng(0).normal(0, jitter, there.shape)
    keypoints = (there + noise).astype(np.float32)
    theta = np.repeat(THETA[None], len(keypoints), axis=0)
    looks = {domain: np.zeros((1, 3, SIZE // 2, SIZE // 2), np.float32) for domain in "ab"}
    retargeter = Retargeter(FixedLooks(CONFIG, {"a": "brown", "b": "turned"}, looks), "a2b", Perfect())
    return Performance(
        source=np.stack([render(BROWN, pose, SIZE)[0] for pose in there]),
        drawn=np.stack([retargeter.draw(pose) for pose in keypoints]),
        true=draw_true(here),
        true_silhouettes=silhouettes(draw_true(here)),
        true_joints=here,
        keypoints=keypoints,
        moved=moved_by(theta, keypoints),
        theta=theta,
        rate=RATE,
        retargeter=retargeter,
    )


def glide(frames: int) -> Motion:
    """A stiff puppet that crosses the frame at a steady speed."""
    walk = Motion.walk(frames, seed=1)
    still = {name: np.repeat(values[:1], frames) for name, values in walk.angles.items()}
    return Motion(still | {"x": np.linspace(-0.2, 0.2, frames)})


def test_smoothing_measures_what_the_filter_does() -> None:
    """Each figure by the formulas of measures 1 and 6, from frames drawn here."""
    performance = perform(Motion.walk(20, seed=3), jitter=0.02)
    assert performance.true is not None
    found = measure_application(performance).smoothing
    assert (found.min_cutoff, found.beta, found.d_cutoff) == (MIN_CUTOFF, BETA, D_CUTOFF)
    smoothed = smooth(np.arange(20) / RATE, performance.keypoints)
    tracks = performance.moved, moved_by(performance.theta, smoothed)
    for moved, psnr, accelerating, flickering in (
        (tracks[0], found.psnr_db, found.acceleration, found.flicker),
        (tracks[1], found.smoothed_psnr_db, found.smoothed_acceleration, found.smoothed_flicker),
    ):
        drawn = draw_true(moved)
        region = silhouettes(performance.true) | silhouettes(drawn)
        assert psnr == pytest.approx(psnr_db(drawn, performance.true, region))
        assert accelerating == pytest.approx(acceleration(moved) / acceleration(performance.true_joints))
        assert flickering == pytest.approx(flicker(drawn) / flicker(performance.true))


def test_a_perfect_retargeter_scores_perfect_and_has_nothing_to_smooth() -> None:
    found = measure_application(perform(Motion.walk(20, seed=3)))
    assert found.smoothing.psnr_db > PERFECT
    assert found.smoothing.acceleration == pytest.approx(1, abs=1e-3)
    assert found.smoothing.flicker == pytest.approx(1, abs=1e-2)
    assert found.smoothing.smoothed_psnr_db < found.smoothing.psnr_db  # the lag is all that is left
    assert found.interpolation.extracted_psnr_db > PERFECT


def test_smoothing_calms_jitter_and_brings_frames_nearer_to_the_truth() -> None:
    found = measure_application(perform(Motion.walk(40, seed=3), jitter=0.02)).smoothing
    assert found.acceleration is not None
    assert found.smoothed_acceleration < 0.9 * found.acceleration
    assert found.smoothed_flicker < 0.95 * found.flicker
    assert found.smoothed_psnr_db > found.psnr_db + 0.3


def test_a_steady_glide_is_filled_in_perfectly_and_a_blend_of_it_is_not() -> None:
    found = measure_application(perform(glide(17))).interpolation
    assert min(found.psnr_db, found.linear_psnr_db, found.extracted_psnr_db) > PERFECT
    assert found.drawn_blend_psnr_db == pytest.approx(found.true_blend_psnr_db, abs=0.01)
    assert found.drawn_blend_psnr_db < 30
    assert found.gain_db == found.psnr_db - found.drawn_blend_psnr_db


@pytest.mark.parametrize("frames", [23, 24])
def test_a_walk_at_twice_the_frame_rate_beats_the_blend(frames: int) -> None:
    """Every figure over the same pixels, of the frames between the first, the third and so on."""
    performance = perform(Motion.walk(frames, seed=2026, gait=0.85))
    assert performance.true is not None
    found = measure_application(performance).interpolation
    assert found.psnr_db > found.linear_psnr_db
    assert found.psnr_db > found.true_blend_psnr_db + 3

    between = range(1, frames - 1, 2)
    times, kept = np.arange(frames) / RATE, performance.keypoints[::2]
    cubic, linear = (
        draw_true(moved_by(performance.theta[between], interpolate(times[::2], kept, times[between], method)))
        for method in ("cubic", "linear")
    )
    true = performance.true

    def blend(film: NDArray[np.uint8]) -> NDArray[np.uint8]:
        means = [(film[index - 1].astype(float) + film[index + 1]) / 2 for index in between]
        return np.rint(means).astype(np.uint8)

    shown = [cubic, linear, performance.drawn[between], blend(performance.drawn), blend(true), true[between]]
    region = np.logical_or.reduce([silhouettes(frames) for frames in shown])
    expected = [psnr_db(frames, true[between], region) for frames in shown[:-1]]
    figures = [found.psnr_db, found.linear_psnr_db, found.extracted_psnr_db]
    figures += [found.drawn_blend_psnr_db, found.true_blend_psnr_db]
    np.testing.assert_allclose(figures, expected, atol=0.01)


def test_a_puppet_that_stands_still_has_no_ratios() -> None:
    motion = Motion({name: np.repeat(values[:1], 5) for name, values in Motion.walk(5, seed=1).angles.items()})
    found = measure_application(perform(motion)).smoothing
    assert (found.acceleration, found.flicker, found.smoothed_acceleration, found.smoothed_flicker) == (None,) * 4


def test_without_truth_there_is_nothing_to_measure() -> None:
    with pytest.raises(ValueError, match="measured against ground truth"):
        measure_application(replace(perform(glide(3)), true=None))
