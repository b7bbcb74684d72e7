"""Real, small trainings on the puppets, in both stages, and ways to end them."""

import os
import signal
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from jokr_rt.config import ModelConfig
from jokr_rt.evaluation.puppets import BLUE, BROWN, Motion, write_clip
from jokr_rt.training.data import Clip, load_clip
from jokr_rt.training.options import TrainOptions
from jokr_rt.training.train import Report, Training

Clips = tuple[Clip, Clip]

CPU = torch.device("cpu")
# Three steps of geometry, then three of texture, saved within either stage and at the end.
OPTIONS = TrainOptions(
    config=ModelConfig(keypoints=6, size=64, width=1 / 16, extractor_size=64),
    steps=6, geometry=0.5, batch=2, lr=5e-4, seed=3, sheet_every=100, save_every=2,
)  # fmt: skip


def puppet_clips(folder: Path, size: int = 64) -> Clips:
    """Twelve frames of either, "a" and "b", with masks."""
    for name, puppet in (("a", BROWN), ("b", BLUE)):
        write_clip(folder / name, puppet, Motion.walk(12, seed=1), size)
    first, second = (load_clip(folder / name / "frames", folder / name / "masks", size) for name in "ab")
    return first, second


class Stop(Exception):
    pass


def ignore(step: int, steps: int, losses: dict[str, float], share: float) -> None:
    pass


def stop_after(last: int) -> Report:
    """To end a run within a step, unsaved."""

    def report(step: int, steps: int, losses: dict[str, float], share: float) -> None:
        if step == last:
            raise Stop

    return report


def press_after(last: int) -> Report:
    """Ctrl-C."""

    def report(step: int, steps: int, losses: dict[str, float], share: float) -> None:
        if step == last:
            os.kill(os.getpid(), signal.SIGINT)

    return report


def begun(clips: Clips, folder: Path, report: Report, options: TrainOptions = OPTIONS) -> None:
    """A run that ends before its time."""
    with pytest.raises((Stop, KeyboardInterrupt)):
        Training(clips, options, folder, CPU).run(report)


def resumed(clips: Clips, folder: Path, options: TrainOptions = OPTIONS) -> Training:
    training = Training(clips, options, folder, CPU)
    training.resume()
    return training


def assert_same(found: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> None:
    """To the bit."""
    assert found.keys() == expected.keys()
    for name, value in found.items():
        assert torch.equal(value, expected[name]), name


def trained(clips: Clips, folder: Path, options: TrainOptions = OPTIONS) -> Training:
    training = Training(clips, options, folder, CPU)
    training.run(ignore)
    return training
