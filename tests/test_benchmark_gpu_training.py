"""The script for a machine with a GPU, on the processor and with a tiny model."""

import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from jokr_rt import parity
from jokr_rt.bundle import FP16, FP32, open_bundle
from jokr_rt.config import ModelConfig
from jokr_rt.evaluation.bars import CLIP_BARS
from jokr_rt.evaluation.data import LabelledClip
from jokr_rt.evaluation.puppets import BLUE, BROWN, Motion, write_clip
from jokr_rt.training.checkpoint import load_checkpoint
from jokr_rt.video import open_video
from tests.process import ROOT

TINY = ModelConfig(keypoints=4, size=64, width=1 / 16, extractor_size=64)


@pytest.fixture
def program() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        import gpu_training

        patch.setitem(gpu_training.PRESETS, gpu_training.PRESET, TINY)
        # Hardly trained keypoints have broad, uncertain maps, in which 16 bits show more than the gate allows.
        patch.setitem(parity.TOLERANCES, FP16, parity.Tolerance(0.1, 255.0))
        yield gpu_training


@pytest.fixture(scope="module")
def creatures(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("creatures")
    for name, puppet in (("one", BROWN), ("other", BLUE)):
        write_clip(folder / name, puppet, Motion.walk(20, seed=1), TINY.size)
    return [str(folder / name) for name in ("one", "other")]


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_it_trains_measures_and_exports(program: ModuleType, creatures: list[str], tmp_path: Path, device: str) -> None:
    words = [*creatures, "--out", str(tmp_path), "--device", device, "--steps", "4"]
    done = CliRunner().invoke(program.main, words)
    assert done.exit_code == 0, done.output
    found = json.loads((tmp_path / "figures.json").read_text())
    assert found["device"]["name"] in done.stdout
    assert list(found["seconds"]) == ["training", "measuring", "export"]
    assert list(found["steps_per_second"]) == ["geometry", "texture"]
    assert [bar["measure"] for bar in found["evaluation"]["bars"]] == [measure for measure, *_ in CLIP_BARS]
    assert list(found["evaluation"]["directions"]) == ["a2b", "b2a"]
    assert found["evaluation"]["directions"]["a2b"]["own"]["frames"] == 4  # every fifth of 20
    assert {figure["precision"] for figure in found["parity"]} == {FP32, FP16}
    checkpoint = load_checkpoint(tmp_path / "train" / "checkpoint.safetensors")
    assert (checkpoint.step, checkpoint.recipe["holdout"], checkpoint.recipe) == (4, 5, found["recipe"])
    assert open_bundle(tmp_path / "model.jokr").precisions == (FP32, FP16)
    with open_video(tmp_path / "sheet.png") as sheet:
        assert (sheet.width, sheet.height) == (6 * 64, 8 * 64)


def test_a_folder_without_frames_is_one_line(program: ModuleType, creatures: list[str], tmp_path: Path) -> None:
    words = [creatures[0], str(tmp_path), "--out", str(tmp_path / "out"), "--device", "cpu", "--steps", "4"]
    done = CliRunner().invoke(program.main, words)
    assert done.exit_code == 1
    assert done.stderr.splitlines()[-1].startswith(f"error: {tmp_path / 'frames'}: ")


def test_the_sheet_shows_held_out_frames(program: ModuleType) -> None:
    frames = np.arange(3 * 2 * 2 * 3, dtype=np.uint8).reshape(3, 2, 2, 3)
    masks = np.full((3, 2, 2), 255, np.uint8)
    clip = program._held_out(LabelledClip(frames, 10.0, masks, held_out=np.array([False, True, True])))
    assert clip.frames.shape == (2, 4, 2, 2)
    assert torch.equal(clip.frames[:, :3], torch.from_numpy(frames[1:]).permute(0, 3, 1, 2))
    assert (clip.frames[:, 3] == 255).all()


def test_speed_is_of_the_steps_between_the_first_and_the_last_of_a_stage(program: ModuleType) -> None:
    ends = [0.0, 1.0, 2.0, 10.0, 14.0]
    assert program._speed(ends, {"geometry": 0.6, "steps": 5}) == {"geometry": 1.0, "texture": 0.25}
    assert program._speed(ends[:4], {"geometry": 0.75, "steps": 4}) == {"geometry": 1.0}
