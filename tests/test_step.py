"""One optimizer step: what it moves, what it leaves, and what is averaged."""

import copy

import pytest
import torch
from torch import nn

from jokr_rt.config import ModelConfig
from jokr_rt.training.affine import inverse, registration, transform
from jokr_rt.training.losses import LossWeights, matching_loss
from jokr_rt.training.networks import soft_argmax
from jokr_rt.training.step import Stepper
from jokr_rt.training.views import Batch, Loader
from tests.tiny import creature_clips

CONFIG = ModelConfig(keypoints=5, size=64, width=1 / 16, extractor_size=64)
CPU = torch.device("cpu")
Tensors = dict[str, torch.Tensor]


@pytest.fixture(scope="module", params=[False, True], ids=["learning", "settling"])
def settling(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def make_batch(settling: bool = False) -> Batch:
    return Loader(creature_clips(4), 2, 0, CPU, settling=lambda step: settling).batch(0)


@pytest.fixture(scope="module")
def batch() -> Batch:
    return make_batch()


def make_stepper(weights: LossWeights | None = None, lr: float = 1e-3, settling: bool = False) -> Stepper:
    """The same one every time, ready to step."""
    torch.manual_seed(0)
    stepper = Stepper(CONFIG, weights or LossWeights(), lr, CPU)
    stepper.set_phase(lr, settling)
    return stepper


def state_of(module: nn.Module) -> Tensors:
    return {name: value.clone() for name, value in module.state_dict().items()}


def gradients(batch: Batch, ramp: float, **weights: float) -> list[torch.Tensor]:
    """Of the model after its first step, as its optimizer keeps them."""
    stepper = make_stepper(LossWeights(**weights))
    stepper.step(batch, ramp)
    return [state["exp_avg"] for state in stepper.optimizers["model"].state.values()]


def test_the_average_follows_by_the_documented_decay():
    stepper = make_stepper()
    for step, decay in ((1, 2 / 11), (8, 9 / 18), (10**6, 0.998)):
        before = state_of(stepper.average)
        with torch.no_grad():
            for weight in stepper.model.parameters():
                weight.add_(1)
        stepper.follow(step)
        for (name, average), weight in zip(stepper.average.named_parameters(), stepper.model.parameters(), strict=True):
            torch.testing.assert_close(average.data, decay * before[name] + (1 - decay) * weight.data)


def test_the_average_has_the_models_statistics(batch):
    stepper = make_stepper()
    for step in (1, 2):
        stepper.step(batch, ramp=1)
        stepper.follow(step)
    expected = dict(stepper.model.named_buffers())
    assert expected["extractor.encoder.3.num_batches_tracked"] == 2
    for name, kept in stepper.average.named_buffers():
        assert torch.equal(kept, expected[name]), name


def test_a_step_moves_the_model_and_its_critics_but_not_the_average(batch):
    stepper = make_stepper()
    before = state_of(stepper.networks)
    stepper.step(batch, ramp=1)
    changed = {name for name, value in state_of(stepper.networks).items() if not torch.equal(value, before[name])}
    assert not any(name.startswith("average.") for name in changed)
    for name in ("model.extractor.keypoint_head.weight", "model.generator.head.weight", "centres",
                 "model.stn_b2a.regressor.bias", "classifier.layers.1.weight"):  # fmt: skip
        assert name in changed
    assert any(name.startswith("discriminator.") for name in changed)
    assert not any(weight.requires_grad for weight in stepper.average.parameters())


def test_at_ramp_0_the_transformers_are_the_registration_of_the_mean_keypoints(batch):
    random = torch.Generator().manual_seed(0)
    in_b = torch.rand(5, 2, generator=random) - 0.5
    truth = torch.tensor([[[0.7, -0.3, 0.2], [0.3, 0.7, -0.1]]])
    in_a = transform(truth, in_b[None])[0]
    poses = torch.rand(3, 5, 2, generator=random) - 0.5
    stepper = make_stepper(lr=0.0)
    nn.init.normal_(stepper.model.stn_a2b.regressor.weight)
    stepper.centres.copy_(torch.stack([in_a, in_b]))
    there = registration(in_a, in_b)
    stepper.step(batch, ramp=0)
    assert torch.equal(stepper.model.stn_a2b.locate(poses), there.expand(3, 2, 3))
    assert torch.equal(stepper.model.stn_b2a.locate(poses), inverse(there).expand(3, 2, 3))
    # A pose of B is moved into A's space by the inverse of its theta, which is what was found; damping takes a little.
    moved = transform(inverse(stepper.model.stn_b2a.locate(in_b[None])), in_b[None])
    torch.testing.assert_close(moved[0], in_a, atol=0.05, rtol=0)


def test_above_ramp_0_the_transformers_are_left_to_learn(batch):
    stepper = make_stepper(lr=0.0)
    stepper.centres.copy_(torch.rand(2, 5, 2, generator=torch.Generator().manual_seed(0)))
    before = state_of(stepper.model.stn_a2b)
    stepper.step(batch, ramp=0.01)
    for name, value in state_of(stepper.model.stn_a2b).items():
        assert torch.equal(value, before[name]), name


def poses_by_hand(stepper: Stepper, batch: Batch, settling: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Plain poses (n, K, 2) of A and of B: first of the 2 frames to draw, then of the others."""
    extractor = copy.deepcopy(stepper.model.extractor)
    keypoints = soft_argmax(extractor(batch.inputs)[0])[0]
    others = transform(batch.other, keypoints[-4:])
    if settling:
        others = soft_argmax(extractor.eval()(batch.plain)[0])[0]
    now = transform(batch.base, keypoints[:4])
    in_a, in_b = (torch.cat(pair) for pair in zip(now.chunk(2), others.chunk(2), strict=True))
    assert len(in_a) == len(in_b) == (10 if settling else 4)
    return in_a, in_b


def test_the_centres_are_a_slow_mean_of_each_videos_plain_keypoints(settling):
    stepper, batch = make_stepper(settling=settling), make_batch(settling)
    expected = torch.stack([poses.mean(0) for poses in poses_by_hand(stepper, batch, settling)])
    stepper.step(batch, ramp=1)
    torch.testing.assert_close(stepper.centres, 0.02 * expected)


def test_poses_are_matched_of_all_views_and_settling_of_frames_as_they_are(settling):
    stepper, batch = make_stepper(settling=settling), make_batch(settling)  # its transformers are the identity
    in_a, in_b = (poses[2 if settling else 0 :] for poses in poses_by_hand(stepper, batch, settling))
    found = stepper.step(batch, ramp=1)["matching"]
    torch.testing.assert_close(found, 2 * matching_loss(in_a, in_b))


def test_late_losses_do_not_pull_before_the_ramp_and_do_after_it(batch):
    late = dict.fromkeys(("adversarial", "confusion", "matching", "cycle"), 0.0)
    for one, other in zip(gradients(batch, ramp=0), gradients(batch, ramp=0, **late), strict=True):
        assert torch.equal(one, other)
    for name in late:
        pairs = zip(gradients(batch, ramp=1), gradients(batch, ramp=1, **{name: 0.0}), strict=True)
        assert not all(torch.equal(one, other) for one, other in pairs), name


def test_coverage_fades_to_a_tenth_of_its_weight(batch):
    late = dict.fromkeys(("adversarial", "confusion", "matching", "cycle"), 0.0)
    half, whole, unfaded = (
        gradients(batch, ramp, coverage=weight, **late) for ramp, weight in ((0.5, 20 / 5.5), (1, 20), (1, 20 / 5.5))
    )
    for one, other in zip(half, whole, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-3)
    assert max((one - other).abs().max() for one, other in zip(half, unfaded, strict=True)) > 1e-3


def test_transformers_learn_at_a_tenth_of_the_rate():
    stepper = make_stepper(lr=4e-4)
    rates = {
        weight: group["lr"] for each in stepper.optimizers.values() for group in each.param_groups
        for weight in group["params"]
    }  # fmt: skip
    for name, weight in stepper.networks.named_parameters():
        if name.startswith("average."):
            assert weight not in rates
        else:
            assert rates[weight] == pytest.approx(4e-5 if "stn" in name else 4e-4), name


def test_settling_statistics_stay_and_drawn_frames_never_count(settling):
    stepper = make_stepper(settling=settling)
    before = state_of(stepper.model)
    stepper.step(make_batch(settling), ramp=1)
    for name, value in state_of(stepper.model).items():
        if "running" in name:
            assert torch.equal(value, before[name]) == settling, name
        if "num_batches_tracked" in name:  # the extractor also sees drawn frames, once a step
            assert value == (0 if settling else 1), name
