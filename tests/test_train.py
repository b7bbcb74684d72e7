"""Real, small trainings on the puppets."""

import json
import os
import signal
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from export import export_bundle
from jokr_rt.config import PRESETS, ModelConfig
from jokr_rt.errors import CheckpointError, OutputError, TrainingError, UsageError
from jokr_rt.evaluation.puppets import BLUE, BROWN, Motion, write_clip
from jokr_rt.parity import verify_bundle
from jokr_rt.training.affine import inverse
from jokr_rt.training.checkpoint import load_checkpoint, read_tensors
from jokr_rt.training.command import background_gap
from jokr_rt.training.data import Clip, load_clip
from jokr_rt.training.geometry import GeometryStage
from jokr_rt.training.log import METRICS
from jokr_rt.training.losses import LossWeights
from jokr_rt.training.networks import Model
from jokr_rt.training.options import Pace, TrainOptions
from jokr_rt.training.resume import RESUME, RESUME_FORMAT, resumed_options
from jokr_rt.training.sheet import sheet_rows
from jokr_rt.training.texture import TextureStage
from jokr_rt.training.train import CHECKPOINT, Report, Training
from jokr_rt.video import open_video

CPU = torch.device("cpu")
# Three steps of geometry, then three of texture, saved within either stage and at the end.
OPTIONS = TrainOptions(
    config=ModelConfig(keypoints=6, size=64, width=1 / 16, extractor_size=64),
    steps=6, geometry=0.5, batch=2, seed=3, sheet_every=100, save_every=2,
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


class Stop(Exception):
    pass


def ignore(step, steps, losses, share):
    pass


def stop_after(last: int) -> Report:
    """To end a run within a step, unsaved."""

    def report(step, steps, losses, share):
        if step == last:
            raise Stop

    return report


def press_after(last: int) -> Report:
    """Ctrl-C."""

    def report(step, steps, losses, share):
        if step == last:
            os.kill(os.getpid(), signal.SIGINT)

    return report


def begun(clips, folder: Path, report: Report, options: TrainOptions = OPTIONS) -> None:
    """A run that ends before its time."""
    with pytest.raises((Stop, KeyboardInterrupt)):
        Training(clips, options, folder, CPU).run(report)


def resumed(clips, folder: Path, options: TrainOptions = OPTIONS) -> Training:
    training = Training(clips, options, folder, CPU)
    training.resume()
    return training


def assert_same(found: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> None:
    """To the bit."""
    assert found.keys() == expected.keys()
    for name, value in found.items():
        assert torch.equal(value, expected[name]), name


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
    options = replace(OPTIONS, steps=100, geometry=0.2, lr=2e-3)
    training = Training(clips, options, tmp_path / "run", CPU)
    before, _ = reconstruction_error(training.model, clips)
    seen: list[int] = []
    checkpoint = training.run(lambda step, steps, losses, share: seen.append(step))
    assert seen == list(range(1, 101))
    error, of_black = reconstruction_error(checkpoint.model, clips)
    assert error < 0.5 * before
    assert of_black < 0.75  # that half was not reached by drawing nothing
    for step, rows in ((20, 8), (100, 8)):
        with open_video(tmp_path / "run" / f"sheet-{step:06}.png") as sheet:
            assert (sheet.width, sheet.height) == (6 * 64, rows * 64)
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
    assert checkpoint.step == 6
    assert not checkpoint.model.training
    kept, texture, geometry = checkpoint.model, training.stage.average, training.stage.frozen
    for part, source in ((kept.generator, texture.generator), (kept.extractor.looks, texture.looks)):
        assert_same(part.state_dict(), source.state_dict())
    found = geometry.extractor.state_dict() | {
        f"looks.{name}": value for name, value in texture.looks.state_dict().items()
    }
    assert_same(kept.extractor.state_dict(), found)
    assert torch.equal(kept.stn_a2b.theta, geometry.transformer.theta)
    assert torch.equal(kept.stn_b2a.theta, inverse(geometry.transformer.theta[None])[0])
    assert not torch.equal(kept.generator.head.weight, training.stage.learner.generator.head.weight)
    frames = checkpoint.references["b"]
    assert frames.shape == (8, 64, 64, 3)
    mask = clips[1].frames[0, 3].numpy() > 127
    assert (frames[0][~mask] == 0).all()
    assert np.array_equal(frames[0][mask], clips[1].frames[0, :3].permute(1, 2, 0).numpy()[mask])


def test_the_texture_begins_with_the_averaged_geometry_and_never_changes_it(clips, tmp_path):
    training = Training(clips, OPTIONS, tmp_path, CPU)
    averages: list[dict[str, torch.Tensor]] = []

    def look(step, steps, losses, share):
        if step == 3:
            averages.append({name: value.clone() for name, value in training.stage.average.named_parameters()})

    training.run(look)
    assert_same(averages[0], dict(training.stage.frozen.named_parameters()))
    assert not training.stage.frozen.training


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


def test_backgrounds_come_in_between_a_tenth_and_three_tenths_of_the_geometry(clips, tmp_path):
    share = Training(clips, replace(OPTIONS, steps=200), tmp_path, CPU).loader.share
    assert [share(step) for step in (0, 10, 15, 20, 30, 99)] == pytest.approx([0, 0, 0.25, 0.5, 1, 1])


def test_what_comes_late_comes_in_by_the_share_of_its_stage(clips, tmp_path, monkeypatch):
    found: list[tuple[type, float]] = []
    for stage in (GeometryStage, TextureStage):

        def note(self, batch, ramp, step=stage.step):
            found.append((type(self), ramp))
            return step(self, batch, ramp)

        monkeypatch.setattr(stage, "step", note)
    trained(clips, tmp_path, replace(OPTIONS, steps=22, geometry=20 / 22))
    assert [stage for stage, _ in found] == [GeometryStage] * 20 + [TextureStage] * 2
    assert [ramp for _, ramp in found] == pytest.approx([0, 0.5] + [1] * 18 + [0, 1])  # 0.05 / 0.1; 0.3 to 0.5


def test_the_rate_falls_over_the_second_half_of_either_stage(clips, tmp_path):
    trained(clips, tmp_path, replace(OPTIONS, steps=12, geometry=1 / 3, lr=8e-4))
    lines = [json.loads(line) for line in (tmp_path / METRICS).read_text().splitlines()]
    geometry, texture = [8e-4] * 3 + [4e-4], [8e-4] * 5 + [6e-4, 4e-4, 2e-4]
    assert [line["lr"] for line in lines] == pytest.approx(geometry + texture)


def test_the_share_of_the_time_is_by_what_a_step_of_each_stage_takes(clips, tmp_path):
    shares: list[float] = []
    options = replace(OPTIONS, steps=4)
    training = Training(clips, options, tmp_path, CPU, Pace(geometry=1.0, coarse=9.0, texture=4.0))
    training.run(lambda step, steps, losses, share: shares.append(share))
    assert shares == pytest.approx([0.1, 0.2, 0.6, 1.0])


def test_coarse_steps_draw_at_half_the_size_and_the_others_at_the_whole(puppets, tmp_path):
    clips = tuple(load_clip(puppets / name / "frames", puppets / name / "masks", 128) for name in "ab")
    config = ModelConfig(keypoints=4, size=128, width=1 / 16, extractor_size=64)
    options = replace(OPTIONS, config=config, steps=4, geometry=0.25, coarse=0.7, sheet_every=1)
    training = Training(clips, options, tmp_path, CPU)
    drawn = []
    training.model.generator.register_forward_hook(
        lambda module, inputs, outputs: drawn.append(outputs[0].shape[-1]) if module.training else None
    )
    checkpoint = training.run(ignore)
    assert drawn == [64, 64, 128]
    for step, size in ((1, 128), (2, 64), (3, 128), (4, 128)):
        with open_video(tmp_path / f"sheet-00000{step}.png") as sheet:
            assert next(iter(sheet)).rgb.shape == (8 * size, 6 * size, 3)
    assert checkpoint.model.config == config


def test_silhouettes_on_the_sheet_are_drawn_with_statistics_of_the_weights_as_they_are(clips, tmp_path, monkeypatch):
    drawers: list[torch.nn.Module] = []
    monkeypatch.setattr(
        "jokr_rt.training.train.save_geometry_sheet", lambda path, model, *rest: drawers.append(rest[0])
    )
    begun(clips, tmp_path, stop_after(2), replace(OPTIONS, sheet_every=1))
    (drawer,) = drawers
    assert not drawer.training
    means = [value for name, value in drawer.named_buffers() if name.endswith("running_mean")]
    assert means
    assert all(value.abs().max() > 0 for value in means)


def test_each_stage_has_its_losses_and_neighbours_in_time_count_only_for_the_temporal_one(clips, tmp_path):
    names: list[set[str]] = []
    for weight in (0.0, 1.0):
        options = replace(OPTIONS, steps=2, weights=LossWeights(temporal=weight))
        training = Training(clips, options, tmp_path / str(weight), CPU)
        training.run(lambda step, steps, losses, share: names.append(set(losses)))
    assert names[2] - names[0] == {"temporal"}
    late = {"adversarial", "features", "discriminator"}  # from three tenths of the texture on
    assert names[1] == names[3]
    assert not names[0] & names[1]
    every = {field.name for field in fields(LossWeights)} | {"classifier"}
    assert names[2] | names[1] | late == every | late


def test_without_its_weight_there_is_no_perceptual_loss_and_no_network_for_it(clips, tmp_path):
    names: list[set[str]] = []
    training = Training(clips, replace(OPTIONS, steps=2, weights=LossWeights(perceptual=0.0)), tmp_path, CPU)
    training.run(lambda step, steps, losses, share: names.append(set(losses)))
    assert training.features is None
    assert "perceptual" not in names[1]


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


def test_resuming_with_other_options_is_refused(clips, tmp_path):
    trained(clips, tmp_path)
    other = Training(clips, replace(OPTIONS, lr=1e-3), tmp_path, CPU)
    with pytest.raises(CheckpointError, match=r"lr = 0\.0005, not 0\.001"):
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


def test_an_unwritable_folder_is_named(clips, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="file/run"):
        Training(clips, OPTIONS, tmp_path / "file" / "run", CPU)


@pytest.mark.parametrize(
    "values",
    [{"batch": 1}, {"lr": -1.0}, {"steps": 0}, {"coarse": 0.5}, {"coarse": 1.1}, {"geometry": 0.0}, {"geometry": 1.0},
     {"geometry": 0.01}, {"geometry": float("nan")}, {"holdout": 1}],
)  # fmt: skip
def test_options_that_cannot_be_meant(values):
    with pytest.raises(UsageError, match=next(iter(values))):
        replace(OPTIONS, **values)


def test_steps_and_seconds_of_the_stages():
    options = TrainOptions(config=PRESETS["realtime"], steps=100, geometry=0.4, coarse=0.5)
    assert (options.geometry_steps, options.coarse_steps) == (40, 30)
    pace = Pace(geometry=1.0, coarse=10.0, texture=100.0)
    assert pace.seconds(options) == 40 + 300 + 3000
    assert [pace.seconds(options, step) for step in (0, 39, 40, 41, 70, 71)] == [0, 39, 40, 50, 340, 440]


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


def test_the_background_gap_is_zero_only_where_the_background_is_black(clips):
    torch.manual_seed(0)
    model = Model(OPTIONS.config).eval()
    torch.nn.init.normal_(model.extractor.keypoint_head.weight, std=1000)
    before_black = clips[0].frames.clone()
    before_black[:, :3] *= before_black[:, 3:] > 127
    before_black[:, 3:] = (before_black[:, 3:] > 127) * 255
    assert background_gap(model, replace(clips[0], frames=before_black)) < 1e-3
    assert background_gap(model, clips[0]) > 1e-2
