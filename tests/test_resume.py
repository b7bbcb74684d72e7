"""What a training leaves behind when it is interrupted, and how it goes on: in either stage, and between them."""

import signal
from dataclasses import replace

import pytest
import torch

from jokr_rt.errors import CheckpointError
from jokr_rt.training.checkpoint import load_checkpoint
from jokr_rt.training.log import METRICS
from jokr_rt.training.losses import LossWeights
from jokr_rt.training.resume import RESUME, resumed_options
from jokr_rt.training.train import CHECKPOINT, Training
from tests.trainings import (
    CPU,
    OPTIONS,
    Clips,
    assert_same,
    begun,
    ignore,
    press_after,
    puppet_clips,
    resumed,
    stop_after,
    trained,
)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Clips:
    return puppet_clips(tmp_path_factory.mktemp("puppets"))


@pytest.fixture(scope="module")
def whole(clips, tmp_path_factory) -> dict[str, torch.Tensor]:
    """All that a run has at its end, never interrupted: weights, statistics, optimizers."""
    return trained(clips, tmp_path_factory.mktemp("whole")).stage.tensors()


@pytest.mark.parametrize(
    ("report", "step", "files"),
    [
        (stop_after(3), 2, [RESUME]),
        (press_after(3), 3, [RESUME]),  # exactly between the stages
        (press_after(4), 4, [CHECKPOINT, RESUME]),
        (stop_after(6), 4, [CHECKPOINT, RESUME]),
    ],
    ids=["geometry", "border", "texture", "texture-later"],
)
def test_a_resumed_run_is_the_uninterrupted_one_to_the_bit(clips, tmp_path, whole, report, step, files):
    """In either stage. There is a checkpoint as soon as there are pictures."""
    begun(clips, tmp_path, report)
    assert sorted(path.name for path in tmp_path.glob("*.safetensors")) == files
    again = resumed(clips, tmp_path)
    assert (again.step, again.in_geometry) == (step, step < 3)
    again.run(ignore)
    assert_same(again.stage.tensors(), whole)
    assert load_checkpoint(tmp_path / CHECKPOINT).step == 6


def test_resuming_again_and_again_changes_nothing(clips, tmp_path, whole):
    begun(clips, tmp_path, press_after(1))
    for step in range(2, 7):
        training = resumed(clips, tmp_path)
        assert training.step == step - 1
        if step < 6:
            with pytest.raises(KeyboardInterrupt):
                training.run(press_after(step))
        else:
            training.run(ignore)
    assert_same(training.stage.tensors(), whole)


def test_a_run_that_overwrites_another_leaves_nothing_of_it_to_export(clips, tmp_path):
    trained(clips, tmp_path)
    begun(clips, tmp_path, press_after(1), replace(OPTIONS, seed=4))
    assert [path.name for path in tmp_path.glob("*.safetensors")] == [RESUME]


@pytest.mark.parametrize("last", [1, 3, 4])
def test_ctrl_c_finishes_the_step_and_saves_it_in_either_stage(clips, tmp_path, last):
    training = Training(clips, OPTIONS, tmp_path, CPU)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt) as ended:
        training.run(press_after(last))
    assert signal.getsignal(signal.SIGINT) is before
    file = tmp_path / (CHECKPOINT if last > 3 else RESUME)
    assert str(ended.value) == f"step {last} is in {file}"
    assert file.exists()
    assert (tmp_path / CHECKPOINT).exists() == (last > 3)
    assert len((tmp_path / METRICS).read_text().splitlines()) == last
    assert resumed(clips, tmp_path).step == last


def test_resuming_with_other_options_is_refused(clips, tmp_path):
    trained(clips, tmp_path)
    other = Training(clips, replace(OPTIONS, lr=0.25), tmp_path, CPU)
    with pytest.raises(CheckpointError, match=rf"lr = {OPTIONS.lr}, not 0\.25"):
        other.resume()
    wider = Training(clips, replace(OPTIONS, config=replace(OPTIONS.config, keypoints=7)), tmp_path, CPU)
    with pytest.raises(CheckpointError, match="keypoints = 6, not 7"):
        wider.resume()
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        Training(clips, OPTIONS, tmp_path / "empty", CPU).resume()


def test_what_a_run_chose_is_taken_up_again_where_nothing_is_said(clips, tmp_path):
    options = replace(OPTIONS, steps=8, mirror=True, weights=LossWeights(cycle=3.0))
    begun(clips, tmp_path, press_after(1), options)
    same = {name: getattr(options, name) for name in ("batch", "seed", "geometry", "weights", "lr")}
    open_ones = dict.fromkeys(("config", "steps", "coarse", "precision", "mirror"))
    found = resumed_options(tmp_path, same | open_ones)
    assert found == replace(options, sheet_every=500, save_every=500)
    assert resumed_options(tmp_path, same | open_ones | {"steps": 9}).steps == 9
    with pytest.raises(CheckpointError, match="steps = 8, not 9"):
        resumed(clips, tmp_path, replace(options, steps=9))


def test_a_pickled_or_foreign_checkpoint_is_refused(clips, tmp_path):
    trained(clips, tmp_path)
    torch.save({"weights": torch.zeros(1)}, tmp_path / "pickled.safetensors")
    with pytest.raises(CheckpointError, match="pickled ones are not loaded"):
        load_checkpoint(tmp_path / "pickled.safetensors")
    with pytest.raises(CheckpointError, match="not a jokr-checkpoint-3 file"):
        load_checkpoint(tmp_path / RESUME)


def test_weights_that_do_not_fit_their_config_are_refused(clips, tmp_path):
    trained(clips, tmp_path)
    content = (tmp_path / CHECKPOINT).read_bytes()
    for old, new, word in (
        (b'keypoints\\": 6', b'keypoints\\": 7', "do not fit each other: size mismatch"),
        (b'\\"size\\": 64', b'\\"size\\": 63', "size must be a multiple of 64"),
    ):
        assert old in content
        (tmp_path / "other.safetensors").write_bytes(content.replace(old, new))
        with pytest.raises(CheckpointError, match=word):
            load_checkpoint(tmp_path / "other.safetensors")
