"""Real, small trainings on the puppets."""

import os
import signal
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from export import export_bundle
from jokr_rt.config import ModelConfig
from jokr_rt.errors import CheckpointError, OutputError, TrainingError, UsageError
from jokr_rt.evaluation.puppets import BLUE, BROWN, Motion, write_clip
from jokr_rt.parity import verify_bundle
from jokr_rt.training.checkpoint import load_checkpoint
from jokr_rt.training.command import background_gap
from jokr_rt.training.data import Clip, load_clip
from jokr_rt.training.losses import LossWeights
from jokr_rt.training.networks import Model
from jokr_rt.training.sheet import sheet_rows
from jokr_rt.training.train import CHECKPOINT, RESUME, Training, TrainOptions
from jokr_rt.video import open_video

CPU = torch.device("cpu")
OPTIONS = TrainOptions(
    config=ModelConfig(keypoints=6, size=64, width=1 / 16, extractor_size=64),
    steps=4, batch=2, seed=3, sheet_every=100, save_every=2,
)  # fmt: skip


@pytest.fixture(scope="module")
def puppets(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("puppets")
    for name, puppet in (("a", BROWN), ("b", BLUE)):
        write_clip(folder / name, puppet, Motion.walk(12, seed=1), 64)
    return folder


@pytest.fixture(scope="module")
def clips(puppets) -> tuple[Clip, Clip]:
    first, second = (load_clip(puppets / name / "frames", puppets / name / "masks", 64) for name in "ab")
    return first, second


def ignore(step, steps, losses):
    pass


def weights_of(training: Training) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in training.stepper.networks.state_dict().items()}


def trained(clips, folder: Path, options: TrainOptions = OPTIONS) -> Training:
    training = Training(clips, options, folder, CPU)
    training.run(ignore)
    return training


def reconstruction_error(model: Model, clips: tuple[Clip, Clip]) -> tuple[float, float]:
    """Mean absolute error in levels of both videos' objects on black, redrawn from their own keypoints.

    Of the whole frame, and of the object's pixels, there as a share of what plain black would score.
    """
    rows = sheet_rows(model.eval(), clips)
    errors, shares = [], []
    for clip, drawn in zip(clips, (rows[2], rows[6]), strict=True):
        frames = clip.references(len(drawn)).astype(float)
        errors.append(np.abs(drawn - frames).mean())
        inside = frames.any(-1)
        shares.append(np.abs(drawn - frames)[inside].mean() / frames[inside].mean())
    return float(np.mean(errors)), float(np.mean(shares))


def test_a_short_training_halves_the_reconstruction_error_and_its_export_agrees_with_it(clips, tmp_path):
    options = replace(OPTIONS, steps=80, lr=2e-3)
    training = Training(clips, options, tmp_path / "run", CPU)
    before, _ = reconstruction_error(training.stepper.model, clips)
    seen: list[int] = []
    checkpoint = training.run(lambda step, steps, losses: seen.append(step))
    assert seen == list(range(1, 81))
    error, of_black = reconstruction_error(checkpoint.model, clips)
    assert error < 0.5 * before
    assert of_black < 0.75  # that half was not reached by drawing nothing
    with open_video(tmp_path / "run" / "sheet-000080.png") as sheet:
        assert (sheet.width, sheet.height) == (6 * 64, 8 * 64)
    bundle = export_bundle(tmp_path / "run" / CHECKPOINT, tmp_path / "trained.jokr")
    assert {figure.output for figure in bundle.parity} == {
        "keypoints",
        "confidence",
        "appearance",
        "theta",
        "warped",
        "image",
    }
    for engine in ("onnxruntime", "openvino"):
        assert all(figure.passed for figure in verify_bundle(bundle, engine)), engine


def test_a_checkpoint_holds_what_export_needs(clips, tmp_path):
    training = trained(clips, tmp_path)
    checkpoint = load_checkpoint(tmp_path / CHECKPOINT)
    assert checkpoint.model.config == OPTIONS.config
    assert checkpoint.domains == {"a": "a", "b": "b"}
    assert checkpoint.step == 4
    assert not checkpoint.model.training
    kept = checkpoint.model.state_dict()
    for name, value in training.stepper.average.state_dict().items():
        assert torch.equal(kept[name], value), name
    assert not torch.equal(kept["generator.head.weight"], training.stepper.model.generator.head.weight)
    frames = checkpoint.references["b"]
    assert frames.shape == (8, 64, 64, 3)
    mask = clips[1].frames[0, 3].numpy() > 127
    assert (frames[0][~mask] == 0).all()
    assert np.array_equal(frames[0][mask], clips[1].frames[0, :3].permute(1, 2, 0).numpy()[mask])


def test_a_resumed_run_is_the_uninterrupted_one_to_the_bit(clips, tmp_path):
    whole = trained(clips, tmp_path / "whole")

    class Stop(Exception):
        pass

    def stop_after_two(step, steps, losses):
        if step == 3:
            raise Stop

    broken = Training(clips, OPTIONS, tmp_path / "broken", CPU)
    with pytest.raises(Stop):
        broken.run(stop_after_two)
    resumed = Training(clips, OPTIONS, tmp_path / "broken", CPU)
    resumed.resume()
    assert resumed.step == 2
    resumed.run(ignore)
    expected = weights_of(whole)
    for name, value in weights_of(resumed).items():
        assert torch.equal(value, expected[name]), name


def test_backgrounds_come_in_between_a_tenth_and_three_tenths_of_the_steps(clips, tmp_path):
    share = Training(clips, replace(OPTIONS, steps=100), tmp_path, CPU).loader.share
    assert [share(step) for step in (0, 10, 15, 20, 30, 99)] == pytest.approx([0, 0, 0.25, 0.5, 1, 1])


def test_coarse_steps_draw_at_half_the_size_and_the_others_at_the_whole(puppets, tmp_path):
    clips = tuple(load_clip(puppets / name / "frames", puppets / name / "masks", 128) for name in "ab")
    config = ModelConfig(keypoints=4, size=128, width=1 / 16, extractor_size=64)
    training = Training(
        clips, replace(OPTIONS, config=config, steps=3, coarse=0.7, sheet_every=1), tmp_path, CPU
    )  # fmt: skip
    drawn = []
    training.stepper.model.generator.register_forward_hook(
        lambda module, inputs, outputs: drawn.append(outputs[0].shape[-1])
    )
    checkpoint = training.run(ignore)
    assert drawn == [64, 64, 128]
    for step, size in ((1, 64), (2, 128), (3, 128)):
        with open_video(tmp_path / f"sheet-00000{step}.png") as sheet:
            assert next(iter(sheet)).rgb.shape == (8 * size, 6 * size, 3)
    assert checkpoint.model.config == config


def test_neighbours_in_time_are_looked_at_only_for_the_temporal_loss(clips, tmp_path):
    names: list[set[str]] = []
    for weight in (0.0, 1.0):
        options = replace(OPTIONS, steps=1, weights=LossWeights(temporal=weight))
        training = Training(clips, options, tmp_path / str(weight), CPU)
        training.run(lambda step, steps, losses: names.append(set(losses)))
    assert names[1] - names[0] == {"temporal"}
    assert names[0] == {field.name for field in fields(LossWeights)} - {"temporal"} | {"discriminator", "classifier"}


def test_ctrl_c_finishes_the_step_and_saves_it(clips, tmp_path):
    training = Training(clips, OPTIONS, tmp_path, CPU)

    def press(step, steps, losses):
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        training.run(press)
    assert signal.getsignal(signal.SIGINT) is before
    assert load_checkpoint(tmp_path / CHECKPOINT).step == 1
    resumed = Training(clips, OPTIONS, tmp_path, CPU)
    resumed.resume()
    assert resumed.step == 1


def test_a_loss_that_is_not_a_number_stops_and_keeps_the_last_good_checkpoint(clips, tmp_path):
    training = Training(clips, OPTIONS, tmp_path, CPU)

    def poison(step, steps, losses):
        if step == 3:
            with torch.no_grad():
                training.stepper.model.generator.head.bias[0] = float("nan")

    with pytest.raises(TrainingError, match=r"step 4: the cycle loss is nan; step 2 is in .*checkpoint\.safetensors"):
        training.run(poison)
    kept = load_checkpoint(tmp_path / CHECKPOINT)
    assert kept.step == 2
    assert all(value.isfinite().all() for value in kept.model.state_dict().values())


def test_training_that_explodes_stops_and_keeps_the_last_good_checkpoint(clips, tmp_path):
    training = Training(clips, replace(OPTIONS, steps=40), tmp_path, CPU)

    def poison(step, steps, losses):
        if step == 3:
            with torch.no_grad():
                for weight in training.stepper.networks["classifier"].parameters():
                    weight *= 1e3

    words = r"step 13: the \w+ loss has exploded to .*; step 2 is in .*checkpoint\.safetensors; try a lower --lr"
    with pytest.raises(TrainingError, match=words):
        training.run(poison)
    assert load_checkpoint(tmp_path / CHECKPOINT).step == 2
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 12


def test_resuming_with_other_options_is_refused(clips, tmp_path):
    trained(clips, tmp_path)
    other = Training(clips, replace(OPTIONS, lr=1e-3), tmp_path, CPU)
    with pytest.raises(CheckpointError, match=r"lr = 0\.0002, not 0\.001"):
        other.resume()
    wider = Training(clips, replace(OPTIONS, config=replace(OPTIONS.config, keypoints=7)), tmp_path, CPU)
    with pytest.raises(CheckpointError, match="keypoints = 6, not 7"):
        wider.resume()
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        Training(clips, OPTIONS, tmp_path / "empty", CPU).resume()


def test_a_pickled_or_foreign_checkpoint_is_refused(clips, tmp_path):
    trained(clips, tmp_path)
    torch.save({"weights": torch.zeros(1)}, tmp_path / "pickled.safetensors")
    with pytest.raises(CheckpointError, match="pickled ones are not loaded"):
        load_checkpoint(tmp_path / "pickled.safetensors")
    with pytest.raises(CheckpointError, match="not a jokr-checkpoint-2 file"):
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


def test_an_unwritable_folder_is_named(clips, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="file/run"):
        Training(clips, OPTIONS, tmp_path / "file" / "run", CPU)


@pytest.mark.parametrize(
    "values", [{"batch": 1}, {"epochs": 0}, {"lr": -1.0}, {"steps": 0}, {"coarse": 0.5}, {"coarse": 1.1}]
)
def test_options_that_cannot_be_meant(values):
    with pytest.raises(UsageError, match=next(iter(values))):
        replace(OPTIONS, **values)


def test_epochs_count_the_frames_of_the_longer_clip(clips):
    assert TrainOptions(epochs=100, batch=5).total_steps(clips) == 100 * 3


def test_the_background_gap_is_zero_only_where_the_background_is_black(clips):
    torch.manual_seed(0)
    model = Model(OPTIONS.config).eval()
    torch.nn.init.normal_(model.extractor.keypoint_head.weight, std=1000)
    before_black = clips[0].frames.clone()
    before_black[:, :3] *= before_black[:, 3:] > 127
    before_black[:, 3:] = (before_black[:, 3:] > 127) * 255
    assert background_gap(model, replace(clips[0], frames=before_black)) < 1e-3
    assert background_gap(model, clips[0]) > 1e-2
