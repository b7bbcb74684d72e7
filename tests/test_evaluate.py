"""A perfect retargeter scores perfect, and one with a known fault what arithmetic says."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from jokr_rt.errors import InputError
from jokr_rt.evaluation import metrics
from jokr_rt.evaluation.bars import CLIP_BARS
from jokr_rt.evaluation.data import EvaluationData, before_black, clip_data, puppet_data
from jokr_rt.evaluation.evaluate import evaluate
from jokr_rt.evaluation.perform import IdentityTransformer
from jokr_rt.evaluation.puppets import BLUE, BROWN, FAMILIES, Motion, Walk, joints, render, write_clip
from jokr_rt.evaluation.results import Evaluation
from jokr_rt.training.data import load_clip
from tests.clips import message_of
from tests.perfect import CONFIG, SEEN, PerfectModel, turned, twin_data, twins

SIDES = ("a2b", "b2a")
SHORT = Walk(16, 0, 1.0)


@pytest.fixture(scope="module")
def data() -> EvaluationData:
    return twin_data()


@pytest.fixture(scope="module")
def perfect(data: EvaluationData) -> Evaluation:
    model = PerfectModel(data)
    return evaluate(model, model, data, model_name="perfect")


def judged(data: EvaluationData, model: PerfectModel) -> Evaluation:
    return evaluate(model, model, data, model_name="faulty")


def test_before_black_nothing_but_the_background_changes():
    data = puppet_data(64, training=SHORT, test=SHORT, probe=SHORT)
    cut_out = before_black(before_black(data))
    for name, domain in data.domains.items():
        clip = cut_out.domains[name].test
        assert np.array_equal(clip.frames, domain.test.on_black)
        assert np.array_equal(clip.on_black, domain.test.on_black)  # the edge's alpha counts once
        assert clip.frames[domain.test.masks == 0].max() == 0
        assert domain.test.frames[domain.test.masks == 0].max() > 0


@pytest.mark.parametrize("side", SIDES)
def test_a_perfect_retargeter_scores_perfect(perfect, data, side):
    found = perfect.directions[side]
    frames = found.retargeting
    assert (frames.psnr_db, frames.psnr_frame_db, frames.ssim) == (100, 100, 1)
    assert found.joints.ratio == pytest.approx(1, abs=1e-3)
    assert found.joints.joint < 0.3 * found.joints.mean_pose
    assert found.joints.relative == found.joints.joint / found.joints.mean_pose
    assert found.affine.rotation_degrees == pytest.approx(0, abs=1e-4)
    assert found.affine.scale_percent == pytest.approx(0, abs=1e-4)
    assert found.affine.shift_percent == pytest.approx(0, abs=1e-4)
    assert found.domain_accuracy == pytest.approx(0.5, abs=0.03)  # the same poses under both labels
    assert (found.disentanglement.appearance_iou, found.disentanglement.follows) == (1, 1)
    assert found.temporal.flicker == 1
    assert found.cycle_error == pytest.approx(0, abs=1e-6)
    assert found.cycle_percent == pytest.approx(0, abs=1e-4)
    assert found.on_mask > 0.98
    own = found.own
    assert (own.frames, own.iou, own.legs_iou, own.psnr_db, own.texture) == (24, 1, 1, 100, 1)
    assert np.array_equal(found.performance.true_joints, data.domains["ab"[side == "a2b"]].test.joints)


def test_a_perfect_retargeter_meets_every_aim(perfect):
    assert len(perfect.bars) == 10
    assert all(bar.met and bar.aim_met for bar in perfect.bars), perfect.bars


@pytest.mark.parametrize("family", FAMILIES)
def test_of_every_family_a_perfect_retargeter_scores_perfect(family):
    data = twin_data(twins(family))
    count = data.domains["a"].test.joints.shape[1]
    model = PerfectModel(data, seen=tuple(range(count - CONFIG.keypoints, count)))  # limbs; trunks follow from them
    found = evaluate(model, model, data, model_name="perfect")
    for result in found.directions.values():
        assert (result.retargeting.psnr_db, result.retargeting.ssim) == (100, 1)
        assert result.retargeting.psnr_gain_db > 50  # no baseline draws it
        assert result.joints.ratio == pytest.approx(1, abs=1e-3)
        errors = result.affine.rotation_degrees, result.affine.scale_percent, result.affine.shift_percent
        assert errors == pytest.approx((0, 0, 0), abs=1e-4)
        assert result.domain_accuracy == pytest.approx(0.5, abs=0.03)
        assert result.cycle_error == pytest.approx(0, abs=1e-6)
        assert result.on_mask == 1
        assert (result.own.iou, result.own.psnr_db) == (1, 100)
    assert all(bar.aim_met for bar in found.bars), found.bars


def test_acceleration_is_that_of_the_joints_it_sees(perfect):
    for side in SIDES:
        found = perfect.directions[side]
        joints = found.performance.true_joints[:, SEEN]
        expected = metrics.acceleration(joints) / metrics.acceleration(found.performance.true_joints)
        assert found.temporal.acceleration == pytest.approx(expected, rel=1e-4)


def test_baselines_are_what_they_claim(perfect, data):
    found = perfect.directions["a2b"]
    true, shape = found.performance.true, found.performance.true_silhouettes
    stored = data.domains["b"].training.on_black
    mean = np.broadcast_to(stored.mean(axis=0).round().astype(np.uint8), true.shape)
    baselines = found.retargeting.baselines
    assert baselines["mean_frame"].psnr_frame_db == metrics.psnr_db(mean, true)
    region = shape | metrics.silhouettes(mean) | metrics.silhouettes(true)
    assert baselines["mean_frame"].gain_db == 100 - metrics.psnr_db(mean, true, region)
    poses, wanted = (clip.joints[:, SEEN] for clip in (data.domains["b"].training, data.domains["b"].test))
    nearest = [int(np.argmin([np.linalg.norm(pose - other) for other in poses])) for pose in wanted]
    assert baselines["nearest_keypoints"].psnr_frame_db == metrics.psnr_db(stored[nearest], true)
    assert found.retargeting.psnr_gain_db == min(baseline.gain_db for baseline in baselines.values())


def test_without_its_transformer_a_model_gains_nothing_over_the_identity(data):
    model = PerfectModel(data)
    found = evaluate(model, IdentityTransformer(model, CONFIG), data, model_name="unmoved")
    for side in SIDES:
        result = found.directions[side]
        assert result.retargeting.baselines["identity_stn"].gain_db == 0
        assert result.retargeting.psnr_gain_db <= 0
        assert result.affine.rotation_degrees == pytest.approx(20)
    shift = math.hypot(0.1, 0.06) / 2 * 100
    assert found.directions["b2a"].affine.shift_percent == pytest.approx(shift)  # the true map takes a to b's place
    assert found.directions["b2a"].affine.scale_percent == pytest.approx(100 / 0.75 - 100)
    assert found.directions["a2b"].affine.scale_percent == pytest.approx(25)
    missed = {bar.measure for bar in found.bars if not bar.met}
    assert {"PSNR over the best baseline", "rotation error", "scale error"} <= missed


def test_an_added_rotation_is_measured(data, perfect):
    found = judged(data, PerfectModel(data, theta=turned(data, 10)))
    for side in SIDES:
        result = found.directions[side]
        assert result.affine.rotation_degrees == pytest.approx(10, abs=1e-4)
        assert result.affine.scale_percent == pytest.approx(0, abs=1e-4)
        assert result.joints.own == pytest.approx(perfect.directions[side].joints.own, rel=0.01)  # it can unlearn it
        assert result.joints.ratio > 2
        assert result.domain_accuracy > 0.8
        assert result.cycle_error > 0.01
    assert next(bar for bar in found.bars if bar.measure == "rotation error").value == pytest.approx(10, abs=1e-4)


def test_an_offset_scores_what_arithmetic_says(data):
    found = judged(data, Forgiving(data, change=lambda image: image + np.uint8(4)))
    for side in SIDES:
        assert found.directions[side].retargeting.psnr_frame_db == pytest.approx(20 * math.log10(255 / 4))
        assert found.directions[side].retargeting.psnr_db == pytest.approx(20 * math.log10(255 / 4))
        assert found.directions[side].temporal.flicker == 1


def test_a_shuffled_order_scores_what_arithmetic_says(data):
    length = len(data.domains["a"].test.frames)
    order = np.random.default_rng(0).permutation(length)
    found = judged(data, PerfectModel(data, order=lambda index: int(order[index]) if index < length else index))
    for side, domain in zip(SIDES, "ba", strict=True):
        true = data.domains[domain].test.on_black
        shape = data.domains[domain].test.silhouettes
        result = found.directions[side]
        region = shape | metrics.silhouettes(true[order])
        mean_square = np.mean((true[order].astype(float) - true)[region] ** 2)
        assert result.retargeting.psnr_db == pytest.approx(10 * math.log10(255**2 / mean_square))
        assert result.temporal.flicker == metrics.flicker(true[order]) / metrics.flicker(true)
        assert result.temporal.flicker > 1.5
        joints = data.domains[domain].test.joints[:, SEEN]
        assert result.cycle_error == pytest.approx(metrics.mean_distance(joints, joints[order]), rel=1e-4)


def test_looks_that_leak_into_the_silhouette_are_found(data):
    class Leaky(PerfectModel):
        """Draws nothing in other looks than the stored ones, which it marks."""

        def appearance(self, domain):
            return super().appearance(domain) + np.float32(0.5)

        def run(self, graph, inputs):
            outputs = super().run(graph, inputs)
            if graph == "extractor":
                outputs["appearance"] = np.floor(outputs["appearance"])
            if graph == "generator" and inputs["appearance"][0, 0, 0, 0] % 1 == 0:
                outputs["image"] = np.zeros_like(outputs["image"])
            return outputs

    found = judged(data, Leaky(data)).directions["a2b"]
    assert found.disentanglement.appearance_iou == 0
    assert found.retargeting.ssim == 1


def test_a_model_that_stands_still_follows_nothing(data):
    found = judged(data, PerfectModel(data, order=lambda index: 0)).directions["a2b"]
    assert (found.disentanglement.moved, found.disentanglement.follows, found.temporal.flicker) == (0, 0, 0)


def test_the_json_has_every_measure_and_no_array(perfect):
    told = json.loads(json.dumps(perfect.to_json(), allow_nan=False))
    assert list(told) == ["model", "engine", "precision", "data", "notes", "directions", "applications", "bars"]
    assert told["directions"]["b2a"]["retargeting"]["psnr_db"] == 100
    assert set(told["directions"]["a2b"]["retargeting"]["baselines"]) == {
        "mean_frame", "nearest_keypoints", "identity_stn",
    }  # fmt: skip
    assert "performance" not in told["directions"]["a2b"]
    assert told["bars"][0] == {
        "measure": "PSNR over the best baseline", "unit": "dB", "bar": 0, "aim": 3, "higher_is_better": True,
        "value": min(told["directions"][side]["retargeting"]["psnr_gain_db"] for side in SIDES),
        "met": True, "aim_met": True,
    }  # fmt: skip


def test_progress_ends_with_all_frames_done(data):
    told: list[tuple[int, int | None]] = []
    model = PerfectModel(data)
    evaluate(model, model, data, model_name="", progress=lambda done, total: told.append((done, total)))
    assert [done for done, _ in told] == list(range(1, len(told) + 1))
    assert {total for _, total in told} == {len(told)}


def test_without_truth_a_model_is_judged_by_what_remains(data):
    model = PerfectModel(data)
    domains = {name: replace(each, training=each.test, probe=None) for name, each in data.domains.items()}
    found = evaluate(model, model, replace(data, domains=domains, truth=None), model_name="clips")
    result = found.directions["a2b"]
    assert (result.retargeting, result.joints, result.affine) == (None, None, None)
    assert (found.bars, found.applications) == ((), {})
    assert (result.own.frames, result.own.psnr_db, result.texture) == (24, 100, 1)
    assert (result.disentanglement.follows, result.temporal.acceleration) == (None, None)
    shapes = metrics.silhouettes(data.domains["b"].test.on_black)
    assert result.disentanglement.moved == pytest.approx(metrics.silhouette_motion(shapes, 8))
    assert result.disentanglement.appearance_iou == 1
    own, other = (metrics.flicker(data.domains[domain].test.on_black) for domain in "ab")
    assert result.temporal.flicker == pytest.approx(other / own)
    assert result.domain_accuracy == pytest.approx(0.5, abs=0.05)
    assert result.on_mask > 0.98


def clips_without_truth(data: EvaluationData) -> EvaluationData:
    """The test walk, of which training never saw every fourth frame."""
    held_out = np.arange(len(data.domains["a"].test.frames)) % 4 == 3
    domains = {
        name: replace(each, training=each.test.pick(~held_out), test=replace(each.test, held_out=held_out), probe=None)
        for name, each in data.domains.items()
    }
    return replace(data, domains=domains, truth=None)


def test_own_frames_are_the_held_out_ones_and_have_bars_of_their_own(data):
    """It draws what it was trained on as it is, and the others without their lowest third, the legs."""
    tests = [data.domains[name].test for name in "ab"]
    held_out = {test.on_black[index].tobytes() for test in tests for index in range(3, 24, 4)}

    def legless(image: np.ndarray) -> np.ndarray:
        if image.tobytes() not in held_out:
            return image
        return image * ~metrics.lower_thirds(metrics.silhouettes(image[None]))[0][:, None, None]

    model = recognising(data, legless)
    clips = clips_without_truth(data)
    found = evaluate(model, model, clips, model_name="clips")
    for side, test in zip(SIDES, tests[::-1], strict=True):
        own, mask = found.directions[side].own, test.silhouettes[3::4]
        legs = mask & metrics.lower_thirds(mask)[:, :, None]
        assert own.frames == 6
        assert own.legs_iou < 0.1  # a row may be in the lowest third of one of both, mask and silhouette
        assert own.iou == pytest.approx(np.mean(1 - legs.sum((1, 2)) / mask.sum((1, 2))), abs=0.05)
        assert own.low_keypoints == metrics.share_low(mask, np.float32(test.joints[3::4, SEEN]))
    bars = {bar.measure: bar for bar in found.bars}
    assert list(bars) == [measure for measure, *_ in CLIP_BARS]
    assert not bars["own silhouette, IoU of the lowest third"].met
    assert bars["keypoints found again"].aim_met
    unknown = {name: replace(each, test=replace(each.test, held_out=None)) for name, each in clips.domains.items()}
    assert evaluate(model, model, replace(clips, domains=unknown), model_name="clips").bars == ()


def test_flat_drawings_have_no_texture(data):
    def flat(image: np.ndarray) -> np.ndarray:
        return (metrics.silhouettes(image[None])[0][..., None] * np.uint8(200)).repeat(3, axis=-1)

    model = recognising(data, flat)
    found = evaluate(model, model, clips_without_truth(data), model_name="flat").directions["a2b"]
    assert (found.texture, found.own.texture, found.own.iou) == (0, 0, 1)


def recognising(data: EvaluationData, change: Callable[[np.ndarray], np.ndarray]) -> PerfectModel:
    """Draws changed frames, and finds the keypoints in those of the test clips, too."""
    model = PerfectModel(data, change=change)
    for name in "ab":
        test = data.domains[name].test
        for frame, pose in zip(test.on_black, np.float32(test.joints[:, SEEN]), strict=True):
            model.poses[change(frame).tobytes()] = name, pose
    return model


def test_puppets_are_given_before_their_background_and_judged_on_black():
    found = puppet_data(64, ("blue", "brown"), training=SHORT, test=SHORT, probe=SHORT)
    clip = found.domains["a"].test
    assert found.domains["a"].name == "blue"
    picture, mask = render(BLUE, clip.joints[3], 64)
    assert np.array_equal(clip.frames[3], picture)
    assert np.array_equal(clip.on_black[3], np.rint(picture * (mask[..., None] / 255)))
    assert np.array_equal(clip.silhouettes[3], mask > 127)
    assert "a is blue, b is brown" in found.notes[0]
    named = puppet_data(64, ("cat", "fox"), training=SHORT, test=SHORT, probe=SHORT)
    assert [named.domains[domain].name for domain in "ab"] == ["brown", "blue"]


def test_a_models_domains_name_the_family():
    found = puppet_data(64, ("tulip-mirrored", "daisy"), training=SHORT, test=SHORT, probe=SHORT)
    tulip = FAMILIES["flower-mirrored"]["tulip-mirrored"]
    assert [found.domains[domain].name for domain in "ab"] == ["tulip-mirrored", "daisy"]
    clip = found.domains["a"].test
    assert np.array_equal(clip.joints, joints(tulip, SHORT.motion(tulip.program)))
    assert np.array_equal(clip.frames[0], render(tulip, clip.joints[0], 64)[0])
    assert np.linalg.det(found.truth.theta["a2b"][:, :2]) < 0


def test_clips_are_read_from_their_start_with_their_masks(tmp_path):
    write_clip(tmp_path / "cat", BROWN, Motion.walk(20, seed=1), 64)
    write_clip(tmp_path / "fox", BLUE, Motion.walk(16, seed=1), 64)
    paths = tmp_path / "cat" / "frames", tmp_path / "fox" / "frames"
    found = clip_data(64, ("cat", "fox"), paths, (tmp_path / "cat" / "masks", None), max_frames=16)
    cat, fox = (found.domains[domain] for domain in "ab")
    assert (cat.name, len(cat.test.frames), cat.training is cat.test, found.truth) == ("cat", 16, True, None)
    assert set(np.unique(cat.test.masks)) == {0, 255}
    assert np.array_equal(fox.test.on_black, fox.test.frames)
    assert (fox.test.silhouettes, fox.test.rate) == (None, 10)
    assert found.notes[1].endswith("frames: the first 16 frames, with masks")
    assert found.notes[2].endswith("frames: 16 frames, without masks")


def test_with_a_holdout_a_clip_is_trained_on_without_those_frames(tmp_path):
    for name, puppet in (("cat", BROWN), ("fox", BLUE)):
        write_clip(tmp_path / name, puppet, Motion.walk(17, seed=1), 64)
    paths, masks = ((tmp_path / "cat" / kind, tmp_path / "fox" / kind) for kind in ("frames", "masks"))
    found = clip_data(64, ("cat", "fox"), paths, masks, 600, holdout=5)
    kept = load_clip(paths[0], masks[0], 64, holdout=5)
    cat = found.domains["a"]
    assert cat.test.held_out.nonzero()[0].tolist() == [4, 9, 14]
    assert (len(cat.test.frames), len(cat.training.frames), len(kept.frames), kept.held_out) == (17, 14, 14, 3)
    assert np.array_equal(cat.training.frames, kept.frames[:, :3].permute(0, 2, 3, 1).numpy())
    assert np.array_equal(cat.training.masks, kept.frames[:, 3].numpy())
    assert found.notes[0] == "no ground truth; own frames are measured on one of every 5, which training never saw"


def test_clips_that_cannot_be_measured_are_refused(tmp_path):
    write_clip(tmp_path / "cat", BROWN, Motion.walk(16, seed=1), 64)
    write_clip(tmp_path / "short", BROWN, Motion.walk(15, seed=1), 64)
    write_clip(tmp_path / "none", replace(BROWN, shift=(9.0, 0.0)), Motion.walk(16, seed=1), 64)

    def refusal(clip: str, masks: str | None) -> str:
        paths: tuple[Path, Path] = (tmp_path / clip / "frames", tmp_path / "cat" / "frames")
        with pytest.raises(InputError) as error:
            clip_data(64, ("a", "b"), paths, (tmp_path / masks / "masks" if masks else None, None), 600)
        return message_of(error)

    assert "short/frames: 15 frames; an evaluation needs at least 16" in refusal("short", None)
    assert "none/masks: no mask shows an object" in refusal("none", "none")
    assert "15 masks for the 16 frames" in refusal("cat", "short")


class Forgiving(PerfectModel):
    """Recognises the frames it has drawn, although they are changed."""

    def run(self, graph, inputs):
        if graph == "extractor" and inputs["frame"][0].tobytes() not in self.poses:
            inputs = {"frame": inputs["frame"] - np.uint8(4)}
        return super().run(graph, inputs)
