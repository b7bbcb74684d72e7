"""Real, small trainings on the puppets."""

import json
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from export import export_bundle
from jokr_rt.config import PRESETS, ModelConfig
from jokr_rt.errors import OutputError, UsageError
from jokr_rt.parity import verify_bundle
from jokr_rt.training.affine import inverse
from jokr_rt.training.checkpoint import load_checkpoint
from jokr_rt.training.command import background_gap
from jokr_rt.training.data import Clip
from jokr_rt.training.geometry import GeometryStage
from jokr_rt.training.log import METRICS
from jokr_rt.training.losses import LossWeights
from jokr_rt.training.networks import Model
from jokr_rt.training.options import Pace, TrainOptions
from jokr_rt.training.sheet import sheet_rows
from jokr_rt.training.texture import TextureStage
from jokr_rt.training.train import CHECKPOINT, Training
from jokr_rt.video import open_video
from tests.trainings import (
    CPU,
    OPTIONS,
    Clips,
    assert_same,
    begun,
    ignore,
    puppet_clips,
    stop_after,
    trained,
)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Clips:
    return puppet_clips(tmp_path_factory.mktemp("puppets"))


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
    assert [ramp for _, ramp in found] == pytest.approx([0, 0.5] + [1] * 18 + [0, 1])  # 0.05 / 0.1


def rates(folder: Path) -> list[float]:
    return [json.loads(line)["lr"] for line in (folder / METRICS).read_text().splitlines()]


def test_the_rate_falls_over_the_second_half_of_either_stage(clips, tmp_path):
    trained(clips, tmp_path, replace(OPTIONS, steps=12, geometry=1 / 3, lr=8e-4))
    geometry, texture = [8e-4] * 3 + [4e-4], [8e-4] * 5 + [6e-4, 4e-4, 2e-4]
    assert rates(tmp_path) == pytest.approx(geometry + texture)


def test_the_share_of_the_time_is_by_what_a_step_of_each_stage_takes(clips, tmp_path):
    shares: list[float] = []
    options = replace(OPTIONS, steps=4)
    training = Training(clips, options, tmp_path, CPU, Pace(geometry=1.0, coarse=9.0, texture=4.0))
    training.run(lambda step, steps, losses, share: shares.append(share))
    assert shares == pytest.approx([0.1, 0.2, 0.6, 1.0])


def test_coarse_steps_draw_at_half_the_size_and_the_others_at_the_whole(tmp_path):
    clips = puppet_clips(tmp_path / "puppets", 128)
    config = ModelConfig(keypoints=4, size=128, width=1 / 16, extractor_size=64)
    options = replace(OPTIONS, config=config, steps=7, geometry=1 / 7, coarse=1 / 3, lr=8e-4, sheet_every=1)
    training = Training(clips, options, tmp_path, CPU)
    drawn = []
    training.model.generator.register_forward_hook(
        lambda module, inputs, outputs: drawn.append(outputs[0].shape[-1]) if module.training else None
    )
    checkpoint = training.run(ignore)
    assert drawn == [64, 64, 128, 128, 128, 128]
    for step, size in ((1, 128), (2, 64), (3, 128), (7, 128)):
        with open_video(tmp_path / f"sheet-00000{step}.png") as sheet:
            assert next(iter(sheet)).rgb.shape == (8 * size, 6 * size, 3)
    assert checkpoint.model.config == config
    assert rates(tmp_path) == pytest.approx([8e-4] * 6 + [4e-4])  # over the second half of the steps at the whole size


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


def test_the_background_gap_is_zero_only_where_the_background_is_black(clips):
    torch.manual_seed(0)
    model = Model(OPTIONS.config).eval()
    torch.nn.init.normal_(model.extractor.keypoint_head.weight, std=1000)
    before_black = clips[0].frames.clone()
    before_black[:, :3] *= before_black[:, 3:] > 127
    before_black[:, 3:] = (before_black[:, 3:] > 127) * 255
    assert background_gap(model, replace(clips[0], frames=before_black)) < 1e-3
    assert background_gap(model, clips[0]) > 1e-2
