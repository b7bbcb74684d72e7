"""Trainings that fail stop in one line, and leave what was saved before."""

from dataclasses import replace

import pytest
import torch

from jokr_rt.errors import TrainingError
from jokr_rt.training.checkpoint import load_checkpoint, read_tensors
from jokr_rt.training.log import METRICS
from jokr_rt.training.resume import RESUME, RESUME_FORMAT
from jokr_rt.training.train import CHECKPOINT, Training
from tests.trainings import CPU, OPTIONS, Clips, puppet_clips, resumed


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Clips:
    return puppet_clips(tmp_path_factory.mktemp("puppets"))


@pytest.mark.parametrize(("last", "loss", "file"), [(3, "sparsity", RESUME), (7, "reconstruction", CHECKPOINT)])
def test_a_loss_that_is_not_a_number_stops_and_keeps_what_was_saved(clips, tmp_path, last, loss, file):
    training = Training(clips, replace(OPTIONS, steps=10), tmp_path, CPU)

    def poison(step, steps, losses, share):
        if step == last:
            with torch.no_grad():
                next(training.stage.learner.parameters()).fill_(float("nan"))

    with pytest.raises(TrainingError) as failed:
        training.run(poison)
    words = f"step {last + 1}: the {loss} loss is nan; step {last - 1} is in {tmp_path / file}; try a lower --lr"
    assert str(failed.value).startswith(words)
    assert "\n" not in str(failed.value)
    tensors, header = read_tensors(tmp_path / RESUME, RESUME_FORMAT)
    assert header["step"] == last - 1
    assert all(value.isfinite().all() for value in tensors.values())
    assert (tmp_path / CHECKPOINT).exists() == (file == CHECKPOINT)
    if file == CHECKPOINT:
        assert load_checkpoint(tmp_path / CHECKPOINT).step == last - 1


@pytest.mark.parametrize(("last", "kept"), [(2, "nothing of this run was saved"), (6, "step 4 is in ")])
def test_a_model_that_draws_no_numbers_is_not_saved(clips, tmp_path, last, kept):
    training = Training(clips, replace(OPTIONS, steps=10, geometry=0.3), tmp_path, CPU)

    def poison(step, steps, losses, share):
        if step == last:
            with torch.no_grad():
                next(training.stage.average.parameters()).fill_(float("nan"))

    with pytest.raises(TrainingError, match=rf"step {last}: what the model draws is nan; {kept}"):
        training.run(poison)
    assert (tmp_path / CHECKPOINT).exists() == (last == 6)


def test_training_that_explodes_stops_and_keeps_what_was_saved(clips, tmp_path):
    training = Training(clips, replace(OPTIONS, steps=40), tmp_path, CPU)

    def poison(step, steps, losses, share):
        if step == 3:
            with torch.no_grad():
                for weight in training.stage.critic.parameters():
                    weight *= 1e3

    words = r"step 13: the \w+ loss has exploded to .*; step 2 is in .*resume\.safetensors; try a lower --lr"
    with pytest.raises(TrainingError, match=words):
        training.run(poison)
    assert resumed(clips, tmp_path, replace(OPTIONS, steps=40)).step == 2
    assert len((tmp_path / METRICS).read_text().splitlines()) == 12


@pytest.mark.parametrize("mirror", [False, True])
def test_a_map_that_turns_inside_out_fails_the_first_stage_at_its_end(clips, tmp_path, mirror):
    training = Training(clips, replace(OPTIONS, mirror=mirror), tmp_path, CPU)

    def turn(step, steps, losses, share):
        if step == 2:
            with torch.no_grad():
                training.stage.learner.transformer.theta[:, 0] *= -1

    words = r"step 3: the map between a and b has collapsed \(it changes areas -[\d.]+ times\); step 2 is in"
    with pytest.raises(TrainingError, match=words):
        training.run(turn)
