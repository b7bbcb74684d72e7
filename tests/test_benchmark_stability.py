"""The benchmark of stability, end to end on tiny settings, and its verdicts."""

import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from jokr_rt.evaluation.puppets import FAMILIES, Motion, true_theta, write_clip
from jokr_rt.training.checkpoint import Checkpoint
from jokr_rt.training.networks import Model
from tests.process import ROOT
from tests.test_benchmark_gpu_training import TINY

TINY_RUN = {"size": 64, "width": 1 / 16, "keypoints": 4, "batch": 2, "steps": 4, "walk": 20}
OPTIONS = [str(word) for name, value in TINY_RUN.items() for word in (f"--{name}", value)]
GOOD = {
    "iou": 0.8, "legs_iou": 0.1, "psnr_db": 20.1, "mean_frame_db": 20.0, "spread": 0.3,
    "rotation": 10.0, "scale": 20.0, "shift": 10.0, "mirrored": 1.0,
}  # fmt: skip


@pytest.fixture
def stability() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        import stability

        yield stability


def call(program: ModuleType, *arguments: str | Path) -> Result:
    return CliRunner().invoke(program.main, list(map(str, arguments)))


def lines_of(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "runs.jsonl").read_text().splitlines()]


def test_a_run_is_trained_measured_and_kept(stability, tmp_path):
    arguments = [tmp_path, "--only", "walker-mirrored", "1", *OPTIONS]
    done = call(stability, *arguments)
    assert done.exit_code == 0, done.output
    (line,) = lines_of(tmp_path)
    assert (line["pair"], line["seed"]) == ("walker-mirrored", 1)
    assert set(line["measures"]) == set(GOOD)
    assert line["faults"] == stability.faults(line["measures"])
    assert (tmp_path / "walker-mirrored-1" / "sheet-000004.png").exists()
    again = call(stability, *arguments)
    assert (again.exit_code, again.stdout, again.stderr) == (0, done.stdout, "")
    assert lines_of(tmp_path) == [line]
    *rows, summary, machine = again.stdout.splitlines()
    assert rows[2].startswith(f"| walker-mirrored | 1 | {line['measures']['iou']:.3f} | ")
    assert summary.startswith(f"{int(not line['faults'])} of 1 usable; batch 2, extractor size 64, keypoints 4, ")
    assert f"torch {torch.__version__}" in machine


def test_clips_are_a_pair_and_a_training_that_stops_is_a_line(stability, tmp_path):
    for name, puppet in zip(("one", "other"), FAMILIES["quadruped"].values(), strict=True):
        write_clip(tmp_path / name, puppet, Motion.walk(20, seed=1), 64)
    arguments = ["--clips", tmp_path / "one", tmp_path / "other", "--only", "one-other", "0", *OPTIONS]
    done = call(stability, tmp_path, *arguments, "--lr", "1e30")
    assert done.exit_code == 0, done.output
    (line,) = lines_of(tmp_path)
    assert line["measures"] == {}
    (fault,) = line["faults"]
    assert fault.startswith("step ")
    assert "nothing of this run was saved" in fault
    assert f"| {fault} |" in done.stdout


def test_what_cannot_begin_is_no_verdict(stability, tmp_path):
    done = call(stability, tmp_path, "--only", "quadruped", "0", *OPTIONS, "--width", "9")
    assert done.exit_code == 1
    expected = "error: quadruped 0: jokr train ended with 2: width must be between 1/64 and 4, not 9.0"
    assert done.stderr.splitlines()[-1] == expected
    assert not (tmp_path / "runs.jsonl").exists()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--only", "cow", "0"], "--only cow: there is no such pair; choose from quadruped, walker-mirrored"),
        (["--size", "256"], "--size 256: give at most 128, the size that PSNR is measured at"),
        (["--walk", "15"], "--walk 15: give at least 16 frames"),
    ],
)
def test_what_cannot_be_meant_is_one_line(stability, tmp_path, given, words):
    done = call(stability, tmp_path, *given)
    assert (done.exit_code, done.stderr) == (2, f"error: {words}\n")


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"iou": 0.799}, "silhouettes overlap by less than 0.8"),
        ({"psnr_db": 20.0}, "no better than the mean frame"),
        ({"spread": 0.02}, "keypoints on one spot"),
        ({"mirrored": 0.0}, "the map mirrors and should not, or the reverse"),
        ({"rotation": 10.1}, "rotation off by more than 10"),
        ({"scale": 20.1}, "scale off by more than 20"),
        ({"shift": 10.1}, "shift off by more than 10"),
    ],
)
def test_each_bound_makes_a_run_unusable(stability, changed, words):
    assert stability.faults(GOOD) == []
    assert stability.faults(GOOD | changed) == [words]


@pytest.mark.parametrize("family", ["quadruped", "walker-mirrored"])
def test_the_true_map_has_no_error_and_one_that_mirrors_wrongly_is_told(stability, family):
    """theta has float32's 24 bits: 1e-7 of about 1, and an angle's arc tangent of that."""
    model = Model(TINY)
    first, second = FAMILIES[family].values()
    with torch.no_grad():
        for stn, source, target in ((model.stn_a2b, first, second), (model.stn_b2a, second, first)):
            stn.theta.copy_(torch.from_numpy(true_theta(source, target)))
    checkpoint = Checkpoint(model, {"a": "a", "b": "b"}, {}, 1)
    found = stability._map_errors(checkpoint, family)
    assert found.pop("mirrored") == 1
    assert max(found.values()) < 1e-4
    with torch.no_grad():
        model.stn_b2a.theta[:, 0] *= -1
    found = stability._map_errors(checkpoint, family)
    assert (found["mirrored"], found["scale"]) == (0, 100)


def test_the_mean_frame_is_of_training_and_measured_on_held_out_frames(stability):
    from jokr_rt.evaluation.data import Domain, EvaluationData, LabelledClip

    def clip(*levels: int, held_out: list[bool] | None = None) -> LabelledClip:
        frames = np.stack([np.full((4, 4, 3), level, np.uint8) for level in levels])
        masks = np.full(frames.shape[:3], 255, np.uint8)
        return LabelledClip(frames, 10.0, masks, held_out=None if held_out is None else np.array(held_out))

    domains = {
        "a": Domain("first", clip(10, 20), clip(10, 20, 40, held_out=[False, False, True])),  # 25 levels off
        "b": Domain("second", clip(10, 20), clip(10, 20, 66, held_out=[False, False, True])),  # 51: a fifth of 255
    }
    found = stability._nearest_to_the_mean_frame(EvaluationData("", domains), {"first": 30.0, "second": 20.0})
    assert found == {"psnr_db": 20.0, "mean_frame_db": pytest.approx(20 * np.log10(5))}
