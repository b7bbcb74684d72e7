"""The second stage: pictures from a geometry that stays as it is."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jokr_rt.training import losses
from jokr_rt.training.affine import inverse, transform, warp
from jokr_rt.training.data import on_black
from jokr_rt.training.losses import LossWeights
from jokr_rt.training.networks import Model, affine_grid_sample, cell_centres, render_heatmaps
from jokr_rt.training.perception import Features, perceptual_loss
from jokr_rt.training.texture import TextureStage
from jokr_rt.training.views import TextureBatch
from tests.tiny_stages import (
    CONFIG,
    MAP,
    Finder,
    changed,
    gradients,
    reached,
    state_of,
    texture_batch,
    texture_stage,
)

NONE = dict.fromkeys(LossWeights.__dataclass_fields__, 0.0)
THETA = torch.stack([MAP, MAP, *inverse(MAP[None]).expand(2, 2, 3)])  # of two views of A, then two of B
OTHER = [0, 2]  # views that are retargeted, too: every other one of either video


@pytest.fixture(scope="module")
def batch() -> TextureBatch:
    batch = texture_batch()
    batch.usual[:] = torch.tensor([True, False, True, False])[:, None, None]
    return batch


class Heard:
    """Inputs and outputs of a network, call by call."""

    def __init__(self, network: nn.Module) -> None:
        self.inputs: list[tuple[Tensor, ...]] = []
        self.outputs: list[tuple[Tensor, ...]] = []
        network.register_forward_hook(self._note)

    def _note(self, network: nn.Module, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...]) -> None:
        self.inputs.append(inputs)
        self.outputs.append(outputs)


@pytest.fixture
def stage() -> TextureStage:
    return texture_stage()


@pytest.fixture
def finder(stage: TextureStage, monkeypatch: pytest.MonkeyPatch) -> Finder:
    """In the place of the stage's extractor."""
    finder = Finder(4)
    monkeypatch.setattr(stage.geometry.extractor, "find", finder)
    return finder


@pytest.mark.parametrize("loss", ["reconstruction", "differences", "mask", "shape", "cycle", "adversarial", "features"])
def test_every_loss_moves_generator_and_looks_and_each_of_masks_no_colours(batch, loss):
    stage = texture_stage(**NONE | {loss: 1.0})
    stage.step(batch, ramp=1)
    assert reached(stage) == {"generator", "looks"}
    assert reached(stage, "critic") == {"layers"}
    colours, mask = gradients(stage, "learner")["generator.head.weight"].split([3, 1], dim=1)
    assert mask.any()
    assert colours.any() == (loss not in ("mask", "shape"))


def test_the_geometry_is_the_same_to_the_bit_whatever_the_texture_learns(stage):
    before, theta = state_of(stage.geometry), stage.theta.clone()
    for step in range(3):
        stage.step(texture_batch(step), ramp=1)
        stage.follow(step + 1)
        stage.look(stage.average, texture_batch(step))
    assert not changed(stage.geometry, before)
    assert torch.equal(stage.theta, theta)
    assert not stage.geometry.training
    assert all(weight.grad is None for weight in stage.geometry.parameters())


def test_before_the_ramp_there_is_no_critic(stage, batch):
    before = state_of(stage.critic)
    assert not {"adversarial", "features", "discriminator"} & set(stage.step(batch, ramp=0))
    assert not changed(stage.critic, before)


def test_heatmaps_of_own_frames_are_bent_about_the_same_keypoints(stage, batch, finder):
    heard = Heard(stage.learner.generator)
    stage.step(batch, ramp=0)
    own = heard.inputs[0][0][:4]
    axis = cell_centres(32, own)
    mass = own / own.sum((2, 3), keepdim=True)
    centres = torch.stack([(mass.sum(2) * axis).sum(-1), (mass.sum(3) * axis).sum(-1)], dim=-1)
    torch.testing.assert_close(centres, finder.poses, atol=0.01, rtol=0)  # a sixth of a cell
    # Half of them by what the other video's frames are warped by, half by chance.
    bent = torch.stack([THETA[2], batch.bend[1], THETA[0], batch.bend[3]])
    expected = affine_grid_sample(render_heatmaps(transform(bent, finder.poses), 32), bent)
    torch.testing.assert_close(own, expected)
    straight = render_heatmaps(finder.poses, 32)
    assert all((one - other).abs().max() > 0.05 for one, other in zip(own, straight, strict=True))


def test_retargeted_heatmaps_are_those_that_a_bundle_makes(stage, batch, finder):
    heard = Heard(stage.learner.generator)
    stage.step(batch, ramp=0)
    plain = transform(batch.base, finder.poses)
    expected = affine_grid_sample(render_heatmaps(plain, 32), THETA)
    torch.testing.assert_close(heard.inputs[0][0][4:], expected[OTHER])


def test_each_creature_is_drawn_in_its_own_looks_in_either_pose(stage, batch):
    heard, looks = Heard(stage.learner.generator), Heard(stage.learner.looks)
    stage.step(batch, ramp=0)
    assert torch.equal(looks.inputs[0][0], batch.looks)
    own, swapped = heard.inputs[0][1].split([4, 2])
    torch.testing.assert_close(own, looks.outputs[0][:, :, None, None].expand(-1, -1, 32, 32))
    assert torch.equal(swapped, own[[2, 0]])


def test_pictures_are_compared_with_the_object_on_black(stage, batch):
    heard = Heard(stage.learner.generator)
    found = stage.step(batch, ramp=0)
    images, masks = (each[:4] for each in heard.outputs[0])
    true, mask = on_black(batch.targets), batch.targets[:, 3:]
    torch.testing.assert_close(found["reconstruction"], losses.reconstruction_loss(images, true, mask))
    torch.testing.assert_close(found["differences"], losses.differences_loss(images, true))
    torch.testing.assert_close(found["mask"], losses.silhouette_loss(masks, mask))


def test_the_perceptual_loss_is_of_every_other_redrawn_frame_and_moves_both_networks(batch):
    stage, features = texture_stage(**NONE | {"perceptual": 1.0}), Features()
    stage.features = features
    heard = Heard(stage.learner.generator)
    found = stage.step(batch, ramp=0)
    expected = perceptual_loss(features, heard.outputs[0][0][:4][OTHER], on_black(batch.targets)[OTHER])
    torch.testing.assert_close(found["perceptual"], expected)
    assert reached(stage) == {"generator", "looks"}


def destination(batch: TextureBatch, poses: Tensor) -> Tensor:
    """Of every other view."""
    return transform(inverse(THETA), transform(batch.base, poses))[OTHER]


def test_shapes_are_those_of_the_other_creature_in_the_destination(stage, batch, finder, monkeypatch):
    asked: list[Tensor] = []

    def silhouettes(keypoints: Tensor) -> Tensor:
        """A fills every picture, B none."""
        asked.append(keypoints)
        return torch.tensor([1e3, -1e3])[:, None, None].expand(2, 2, 64, 64)

    monkeypatch.setattr(stage.geometry, "silhouettes", silhouettes)
    heard = Heard(stage.learner.generator)
    found = stage.step(batch, ramp=0)
    torch.testing.assert_close(asked, [destination(batch, finder.poses)])
    of_b, of_a = heard.outputs[0][1][4:].chunk(2)  # in A's poses B is drawn
    torch.testing.assert_close(found["shape"], (of_b.square().mean() + (of_a - 1).square().mean()) / 2)


@pytest.mark.parametrize("side", [32, 128])
def test_shapes_of_another_size_than_the_silhouettes_are_compared_at_the_smaller(stage, batch, monkeypatch, side):
    random = torch.Generator().manual_seed(0)
    both = torch.randn(2, 2, side, side, generator=random)
    monkeypatch.setattr(stage.geometry, "silhouettes", lambda keypoints: both)
    heard = Heard(stage.learner.generator)
    found = stage.step(batch, ramp=0)
    shapes = heard.outputs[0][1][4:]
    wanted = (torch.cat([both[:1, 1:], both[1:, :1]]) > 0).float()  # whatever its doubts
    small = min(side, 64)
    expected = F.mse_loss(F.adaptive_avg_pool2d(shapes, small), F.adaptive_avg_pool2d(wanted, small))
    torch.testing.assert_close(found["shape"], expected)


def test_keypoints_are_found_again_in_what_was_retargeted_and_shaken(stage, batch, finder):
    heard = Heard(stage.learner.generator)
    found = stage.step(batch, ramp=0)
    views, fakes = finder.seen
    assert torch.equal(views, batch.inputs)
    shake = batch.shake[OTHER]
    torch.testing.assert_close(fakes, warp(heard.outputs[0][0][4:] + 1, shake) - 1)
    there = transform(inverse(shake), destination(batch, finder.poses))
    torch.testing.assert_close(found["cycle"], losses.keypoint_distance(finder.poses[:2], there))


def test_the_critic_judges_redrawn_frames_as_their_own_videos_and_retargeted_ones_as_the_others(stage, batch, finder):
    drawn, judged = Heard(stage.learner.generator), Heard(stage.critic)
    found = stage.step(batch, ramp=1)
    images, true = drawn.outputs[0][0][:4], on_black(batch.targets)
    fakes = finder.seen[1]
    for (pictures, side), expected, sides in zip(
        judged.inputs,
        ([true], [images, fakes], [true, images, fakes]),
        ([0, 0, 1, 1], [0, 0, 1, 1, 1, 0], [0, 0, 1, 1, 0, 0, 1, 1, 1, 0]),
        strict=True,
    ):
        assert torch.equal(pictures, torch.cat(expected))
        assert side.tolist() == sides
    (_, *real), (scores, *levels), (again, *_) = judged.outputs
    torch.testing.assert_close(found["adversarial"], (scores - 0.9).square().mean())
    gaps = [(level[:4] - other).abs().mean() for level, other in zip(levels, real, strict=True)]
    torch.testing.assert_close(found["features"], torch.stack(gaps).mean())
    expected = (again[:4] - 0.9).square().mean() + again[4:].square().mean()
    torch.testing.assert_close(found["discriminator"], expected)


def test_what_is_handed_over_is_what_was_learnt(stage, batch):
    stage.step(batch, ramp=1)
    stage.follow(1)
    model = Model(CONFIG)
    before = state_of(model.extractor)
    stage.hand_over(stage.average, model)
    for mine, theirs in ((model.generator, stage.average.generator), (model.extractor.looks, stage.average.looks)):
        assert not changed(mine, dict(theirs.state_dict()))
    assert all(name.startswith("looks.") for name in changed(model.extractor, before))
