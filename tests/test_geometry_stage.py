"""The first stage: what each loss compares and what it moves; the map to begin with."""

import pytest
import torch
import torch.nn.functional as F

from jokr_rt.training import losses
from jokr_rt.training.affine import compose, determinant, inverse, transform
from jokr_rt.training.data import Clip
from jokr_rt.training.geometry import GeometryStage, first_map, own
from jokr_rt.training.losses import LossWeights
from jokr_rt.training.networks import Model
from tests.tiny_stages import (
    CONFIG,
    MAP,
    Finder,
    changed,
    geometry_batch,
    geometry_stage,
    gradients,
    reached,
    state_of,
)
from tests.tolerances import FP32

NONE = dict.fromkeys(LossWeights.__dataclass_fields__, 0.0)


@pytest.fixture(scope="module")
def batch():
    return geometry_batch()


@pytest.mark.parametrize(
    ("loss", "parts"),
    [
        ("silhouette", {"extractor", "drawer"}),
        ("equivariance", {"extractor"}),
        ("sparsity", {"extractor"}),
        ("coverage", {"extractor"}),
        ("diversity", {"extractor"}),
        ("temporal", {"extractor"}),
        ("confusion", {"extractor", "transformer"}),
        ("matching", {"extractor", "transformer"}),
    ],
)
def test_every_loss_moves_what_it_should_and_nothing_else(loss, parts):
    stage = geometry_stage(**NONE | {loss: 1.0})
    stage.step(geometry_batch(neighbours=loss == "temporal"), ramp=1)
    assert reached(stage) == parts
    assert reached(stage, "critic") == {"layers"}


def test_looks_do_not_learn_with_the_geometry(batch):
    stage = geometry_stage()
    before = state_of(stage.learner.extractor.looks)
    stage.step(batch, ramp=1)
    assert not changed(stage.learner.extractor.looks, before)
    assert not any("looks" in name for name in gradients(stage, "learner"))


def test_what_comes_late_does_not_pull_before_the_ramp_and_does_after_it(batch):
    found = {}
    for ramp, weights in ((0, {}), (0, {"confusion": 0.0, "matching": 0.0}), (1, {}), (1, {"confusion": 0.0}),
                          (1, {"matching": 0.0})):  # fmt: skip
        stage = geometry_stage(**weights)
        stage.step(batch, ramp)
        found[ramp, tuple(weights)] = gradients(stage, "learner")

    def same(one, other):
        return all(torch.equal(value, found[other][name]) for name, value in found[one].items())

    assert same((0, ()), (0, ("confusion", "matching")))
    for name in ("confusion", "matching"):
        assert not same((1, ()), (1, (name,))), name
    assert not same((0, ()), (1, ()))


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> GeometryStage:
    """One whose extractor finds known poses, and whose classifier drops nothing."""
    stage = geometry_stage()
    stage.critic.eval()
    return stage


def found_poses(stage: GeometryStage, monkeypatch: pytest.MonkeyPatch, groups: int) -> list[torch.Tensor]:
    finder = Finder(4 * groups)
    monkeypatch.setattr(stage.learner.extractor, "find", finder)
    return list(finder.poses.split(4))


def test_views_their_neighbours_and_the_views_once_more_are_compared(stage, monkeypatch):
    batch = geometry_batch(neighbours=True)
    now, following, again = found_poses(stage, monkeypatch, 3)
    found = stage.step(batch, ramp=1)
    expected = losses.keypoint_distance(batch.extra.transform(again), now)
    torch.testing.assert_close(found["equivariance"], expected)
    torch.testing.assert_close(found["temporal"], losses.keypoint_distance(following, now))
    torch.testing.assert_close(found["diversity"], losses.diversity_loss(now))
    mask = F.avg_pool2d(batch.masks, 2)
    torch.testing.assert_close(found["coverage"], losses.coverage_loss(now, mask))
    cells = ((now + 1) * 16).long()
    on_object = mask[torch.arange(4)[:, None], 0, cells[..., 1], cells[..., 0]] > 0.5
    assert 0 < on_object.sum() < 20
    expected = -(on_object.float() + losses.EPSILON).log().mean()
    torch.testing.assert_close(found["sparsity"], expected)


def test_poses_of_plain_frames_match_and_those_of_views_confuse(stage, batch, monkeypatch):
    """B's are moved into A's space by the map of "a2b", which moves A's by its inverse."""
    now, _ = found_poses(stage, monkeypatch, 2)
    plain = transform(batch.base, now)
    theta = MAP.expand(2, 2, 3)
    assert torch.equal(stage.learner.transformer.theta, MAP)
    in_a = torch.cat([now[:2], transform(theta, now[2:])])
    logits = stage.critic(in_a).detach()
    expected = losses.matching_loss(plain[:2], transform(theta, plain[2:]))
    found = stage.step(batch, ramp=1)
    torch.testing.assert_close(found["matching"], expected)
    torch.testing.assert_close(found["confusion"], losses.confusion_loss(logits))
    labels = torch.tensor([0.0, 0, 1, 1])
    torch.testing.assert_close(found["classifier"], losses.classification_loss(logits, labels))


def test_each_view_is_compared_with_the_silhouette_of_its_own_creature(stage, batch, monkeypatch):
    found_poses(stage, monkeypatch, 2)
    both = torch.randn(4, 2, 64, 64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    monkeypatch.setattr(stage.learner, "silhouettes", lambda keypoints: both)
    drawn = torch.sigmoid(both.detach())
    expected = torch.stack([((drawn[view, view // 2] - batch.masks[view, 0]) ** 2).mean() for view in range(4)]).mean()
    torch.testing.assert_close(stage.step(batch, ramp=1)["silhouette"], expected)
    spread, silhouette, true_silhouette, contrast = stage.sights
    torch.testing.assert_close(silhouette, torch.stack([drawn[:2, 0].mean(), drawn[2:, 1].mean()]))
    torch.testing.assert_close(true_silhouette, batch.masks.unflatten(0, (2, 2)).mean((1, 2, 3, 4)))


def test_own_silhouettes_are_the_first_of_a_and_the_second_of_b():
    both = torch.arange(8.0).reshape(4, 2, 1, 1)
    assert own(both).flatten().tolist() == [0, 2, 5, 7]


def test_silhouettes_are_drawn_from_keypoints_alone_at_the_size_that_is_looked_at():
    stage = geometry_stage()
    assert stage.learner.silhouettes(torch.zeros(3, 5, 2)).shape == (3, 2, 64, 64)
    widths = {layer.out_channels for layer in stage.learner.drawer.modules() if hasattr(layer, "out_channels")}
    assert max(widths) == 512 // 4  # whatever the model's


def rectangle(left: int, top: int, width: int, height: int, count: int = 3) -> Clip:
    frames = torch.zeros(count, 4, 64, 64, dtype=torch.uint8)
    frames[:, 3, top : top + height, left : left + width] = 255
    return Clip("r", frames, True)


def corners(left: int, top: int, width: int, height: int) -> torch.Tensor:
    xs, ys = torch.tensor([left, left + width]) / 32 - 1, torch.tensor([top, top + height]) / 32 - 1
    return torch.cartesian_prod(xs, ys)[None]


@pytest.mark.parametrize("mirror", [False, True])
def test_the_first_map_lays_the_creatures_over_each_other(mirror):
    here, there = (4, 10, 24, 12), (40, 30, 16, 8)
    theta = first_map(rectangle(*here), rectangle(*there, count=5), mirror)
    assert theta.shape == (2, 3)
    expected = corners(*here)
    if mirror:
        expected = expected[:, [2, 3, 0, 1]]  # left is right
    torch.testing.assert_close(transform(theta[None], corners(*there)), expected, atol=FP32, rtol=0)
    assert determinant(theta[None]).item() == pytest.approx(-2.25 if mirror else 2.25)


def test_the_first_map_is_of_all_frames():
    frames = torch.cat([rectangle(0, 0, 8, 8).frames, rectangle(16, 0, 8, 8).frames])
    theta = first_map(Clip("two", frames, True), rectangle(8, 0, 8, 8), mirror=False)
    torch.testing.assert_close(theta, torch.eye(2, 3), atol=FP32, rtol=0)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_map_keeps_its_sign_and_both_directions_get_it(batch, sign):
    start = MAP * torch.tensor([[sign], [1.0]])
    stage = geometry_stage(start)
    for step in range(1, 6):
        stage.step(batch, ramp=1)
        stage.follow(step)
    model = Model(CONFIG)
    stage.hand_over(stage.average, model)
    there, back = model.stn_a2b.theta[None], model.stn_b2a.theta[None]
    assert torch.equal(there[0], stage.average.transformer.theta)
    assert not torch.equal(there[0], start)
    assert determinant(there).sign() == determinant(back).sign() == sign
    assert torch.equal(back, inverse(there))
    torch.testing.assert_close(compose(there, back)[0], torch.eye(2, 3), atol=FP32, rtol=0)
    for name, value in stage.average.extractor.state_dict().items():
        assert torch.equal(model.extractor.state_dict()[name], value), name
