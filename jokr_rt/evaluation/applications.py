"""What keypoints as a bottleneck are good for, measured: smoothing a movement, and filling in its frames."""

import numpy as np
from numpy.typing import NDArray

from jokr_rt.evaluation.metrics import Frames, acceleration, flicker, moved_by, psnr_db, ratio, silhouettes
from jokr_rt.evaluation.perform import draw, locate
from jokr_rt.evaluation.results import Application, Interpolation, Performance, Smoothing
from jokr_rt.keypoints import BETA, D_CUTOFF, MIN_CUTOFF, interpolate, smooth


def measure_application(performance: Performance) -> Application:
    """Both applications on the test clip of one direction, at least three frames long.

    Raises ValueError where the clip has no ground truth, and EngineError.
    """
    if performance.true is None or performance.true_silhouettes is None or performance.true_joints is None:
        raise ValueError("applications are measured against ground truth, which this clip has not")
    truth = performance.true, performance.true_silhouettes
    return Application(
        _measure_smoothing(performance, performance.true_joints, *truth), _measure_interpolation(performance, *truth)
    )


def _measure_smoothing(
    performance: Performance, true_joints: NDArray[np.float64], true: Frames, true_silhouettes: NDArray[np.bool_]
) -> Smoothing:
    smoothed = smooth(_times(performance), performance.keypoints)
    moved = moved_by(locate(performance.retargeter, smoothed), smoothed)
    drawn = draw(performance.retargeter, smoothed)

    def psnr(frames: Frames) -> float:
        return psnr_db(frames, true, true_silhouettes | silhouettes(frames))

    return Smoothing(
        min_cutoff=MIN_CUTOFF,
        beta=BETA,
        d_cutoff=D_CUTOFF,
        psnr_db=psnr(performance.drawn),
        smoothed_psnr_db=psnr(drawn),
        acceleration=ratio(acceleration(performance.moved), acceleration(true_joints)),
        smoothed_acceleration=ratio(acceleration(moved), acceleration(true_joints)),
        flicker=ratio(flicker(performance.drawn), flicker(true)),
        smoothed_flicker=ratio(flicker(drawn), flicker(true)),
    )


def _measure_interpolation(
    performance: Performance, true: Frames, true_silhouettes: NDArray[np.bool_]
) -> Interpolation:
    """Of every other frame, from the first, and the frames between two of these."""
    times, keypoints, drawn = _times(performance), performance.keypoints, performance.drawn
    between = slice(1, len(times) - 1, 2)

    def fill(method: str) -> Frames:
        return draw(performance.retargeter, interpolate(times[::2], keypoints[::2], times[between], method))

    candidates = [fill("cubic"), fill("linear"), drawn[between], _blend(drawn[::2]), _blend(true[::2])]
    # The same pixels for all, so that a ghost beside the creature counts against whoever draws it.
    region = np.logical_or.reduce([true_silhouettes[between], *map(silhouettes, candidates)])
    cubic, linear, extracted, drawn_blend, true_blend = (
        psnr_db(frames, true[between], region) for frames in candidates
    )
    return Interpolation(cubic, linear, extracted, drawn_blend, true_blend, gain_db=cubic - drawn_blend)


def _times(performance: Performance) -> NDArray[np.float64]:
    return np.arange(len(performance.keypoints)) / performance.rate


def _blend(frames: Frames) -> Frames:
    """The mean of each two neighbours."""
    return np.rint((frames[:-1].astype(np.float32) + frames[1:]) / 2).astype(np.uint8)
