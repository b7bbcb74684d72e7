"""An evaluation made up for the tests of what is shown of one: every number in it is another one."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from jokr_rt import Retargeter
from jokr_rt.evaluation.results import (
    AffineError,
    Application,
    Baseline,
    DirectionResult,
    Disentanglement,
    Evaluation,
    Interpolation,
    JointKeypoints,
    OwnFrames,
    Performance,
    Retargeting,
    Smoothing,
    Temporal,
)
from tests.tiny import creature_frames

SIZE, FRAMES, KEYPOINTS = 64, 12, 10


def example_evaluation(bundle: Path) -> Evaluation:
    """With ground truth, in both directions; its names need escaping."""
    directions = {
        direction: measured(direction, perform(Retargeter(bundle, direction), seed), seed / 10)
        for seed, direction in enumerate(("a2b", "b2a"))
    }
    application = Application(
        Smoothing(2.0, 4.0, 1.0, 20.13, 20.05, 1.291, 1.055, 1.061, 0.994),
        Interpolation(19.36, 19.33, 19.51, 18.69, 22.63, 0.67),
    )
    applications = dict.fromkeys(directions, application)
    return Evaluation("models/<i>.jokr", "openvino", "bf16", "puppets", ("a note & more",), directions, applications)


def without_truth(evaluation: Evaluation) -> Evaluation:
    return replace(
        evaluation,
        applications={},
        directions={
            direction: replace(
                result,
                retargeting=None,
                joints=None,
                affine=None,
                disentanglement=replace(result.disentanglement, follows=None),
                temporal=replace(result.temporal, acceleration=None),
                performance=replace(result.performance, true=None, true_silhouettes=None, true_joints=None),
            )
            for direction, result in evaluation.directions.items()
        },
    )


def perform(retargeter: Retargeter, seed: int, rate: float = 10.0) -> Performance:
    source, drawn, true = (creature_frames(FRAMES, SIZE, seed + index) for index in range(3))
    keypoints = np.random.default_rng(seed).uniform(-0.9, 0.9, (FRAMES, KEYPOINTS, 2)).astype(np.float32)
    theta = np.repeat(np.eye(2, 3, dtype=np.float32)[None], FRAMES, axis=0)
    joints = keypoints.astype(np.float64)
    return Performance(source, drawn, true, true.any(-1), joints, keypoints, keypoints, theta, rate, retargeter)


def measured(direction: str, performance: Performance, offset: float) -> DirectionResult:
    """A result whose every number is another one."""
    source, target = ("cat", "<fox> & co")[:: 1 if direction == "a2b" else -1]
    return DirectionResult(
        direction=direction,
        source=source,
        target=target,
        retargeting=Retargeting(
            20.12 + offset,
            25.34 + offset,
            0.861 + offset / 100,
            1.56 + offset,
            {
                "mean_frame": Baseline(18.21, 23.22, 0.823, 1.56 + offset),
                "nearest_keypoints": Baseline(17.31, 22.32, 0.733, 2.81 + offset),
                "identity_stn": Baseline(12.41, 21.42, 0.643, 7.71 + offset),
            },
        ),
        joints=JointKeypoints(0.021 + offset / 100, 0.032, 0.153, 0.204, 1.55 + offset),
        affine=AffineError(4.25 + offset, 3.35, 2.45),
        domain_accuracy=0.567,
        disentanglement=Disentanglement(0.972, 0.391, 0.88),
        temporal=Temporal(0.0123, 1.29 + offset, 1.06 + offset),
        cycle_error=0.0456,
        cycle_percent=5.67,
        on_mask=0.912,
        own=OwnFrames(7, 0.934, 0.845, 22.61 + offset, 0.77, 0.223),
        texture=0.68,
        performance=performance,
    )
