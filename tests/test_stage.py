"""What both stages of training share: rates, averages, statistics, and all that a resumed run needs."""

import copy

import pytest
import torch
from torch import nn

from jokr_rt.training.distributed import BatchNorm
from jokr_rt.training.geometry import CLASSIFIER_RATE, MAP_RATE, GeometryStage
from jokr_rt.training.losses import LossWeights
from jokr_rt.training.stage import Stage, recompute_statistics, weighted
from jokr_rt.training.texture import DISCRIMINATOR_RATE, GENERATOR_RATE
from tests.tiny_stages import (
    RATE,
    changed,
    geometry_batch,
    geometry_stage,
    gradients,
    state_of,
    texture_batch,
    texture_stage,
)
from tests.tolerances import REWRITE

STAGES = {"geometry": (geometry_stage, geometry_batch), "texture": (texture_stage, texture_batch)}


@pytest.fixture(params=STAGES)
def stage(request: pytest.FixtureRequest) -> Stage:
    return STAGES[request.param][0]()


@pytest.fixture
def batch(request: pytest.FixtureRequest, stage: Stage) -> object:
    return STAGES[request.node.callspec.params["stage"]][1]()


def test_the_average_follows_by_the_documented_decay(stage):
    for step, decay in ((1, 2 / 11), (8, 9 / 18), (10**6, 0.998)):
        before = state_of(stage.average)
        with torch.no_grad():
            for weight in stage.learner.parameters():
                weight.add_(1)
        stage.follow(step)
        for (name, average), weight in zip(stage.average.named_parameters(), stage.learner.parameters(), strict=True):
            if weight.requires_grad:
                torch.testing.assert_close(average.data, decay * before[name] + (1 - decay) * weight.data)


def test_a_step_moves_learner_and_critic_but_neither_average_nor_what_is_frozen(stage, batch):
    average, frozen = state_of(stage.average), state_of(stage.frozen)
    learner, critic = state_of(stage.learner), state_of(stage.critic)
    stage.step(batch, ramp=1)
    assert not changed(stage.average, average)
    assert not changed(stage.frozen, frozen)
    trained = {name for name, weight in stage.learner.named_parameters() if weight.requires_grad}
    assert trained <= changed(stage.learner, learner)
    assert {name for name, _ in stage.critic.named_parameters()} <= changed(stage.critic, critic)
    assert not any(weight.requires_grad for network in (stage.average, stage.frozen) for weight in network.parameters())


def test_every_weight_learns_at_its_rate(stage):
    stage.set_rate(1e-4)
    rates = {
        weight: group["lr"] for each in stage.optimizers.values() for group in each.param_groups
        for weight in group["params"]
    }  # fmt: skip
    in_geometry = isinstance(stage, GeometryStage)
    parts = {"transformer": MAP_RATE} if in_geometry else {"generator": GENERATOR_RATE, "looks": GENERATOR_RATE}
    expected = dict.fromkeys(stage.critic.parameters(), CLASSIFIER_RATE if in_geometry else DISCRIMINATOR_RATE)
    for name, weight in stage.learner.named_parameters():
        if weight.requires_grad:
            expected[weight] = parts.get(name.split(".")[0], 1.0)
    assert rates == {weight: pytest.approx(1e-4 * share) for weight, share in expected.items()}


def test_the_critic_learns_from_its_own_loss_alone(stage, batch):
    """What the learner's loss sends back through the critic is forgotten."""
    late = ("confusion", "matching", "adversarial", "features")
    make = geometry_stage if stage.frozen.state_dict() == {} else texture_stage
    found = []
    for weight in (0.0, 50.0):
        each = make(**dict.fromkeys(late, weight))
        torch.manual_seed(1)
        each.step(batch, ramp=1)
        found.append(gradients(each, "critic"))
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, rtol=0, atol=REWRITE * (1 + gradient.abs().max().item()))


def test_a_stage_goes_on_from_its_tensors_to_the_bit(stage, batch):
    def go_on(each: Stage) -> dict[str, torch.Tensor]:
        torch.manual_seed(2)
        each.step(batch, ramp=1)
        each.follow(2)
        return each.tensors()

    stage.step(batch, ramp=1)
    stage.follow(1)
    kept = stage.tensors()
    expected = go_on(stage)
    other = geometry_stage() if stage.frozen.state_dict() == {} else texture_stage()
    for weight in other.learner.parameters():
        nn.init.zeros_(weight)
    other.load(kept)
    other.set_rate(RATE)
    found = go_on(other)
    assert found.keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in found.items())
    assert not torch.equal(expected["average." + first_weight(stage)], kept["average." + first_weight(stage)])


def first_weight(stage: Stage) -> str:
    return next(name for name, weight in stage.learner.named_parameters() if weight.requires_grad)


def test_tensors_are_a_copy_that_later_steps_leave_alone(stage, batch):
    stage.step(batch, ramp=1)
    kept = stage.tensors()
    before = {name: value.clone() for name, value in kept.items()}
    stage.step(batch, ramp=1)
    assert all(torch.equal(value, before[name]) for name, value in kept.items())


def test_a_weighted_sum_has_every_loss_by_its_name():
    found = {"cycle": torch.tensor(3.0), "mask": torch.tensor(0.5)}
    assert weighted(found, LossWeights(cycle=2.0, mask=10.0), {"cycle": 0.5}) == 3 + 5


def normed(momentum: float) -> nn.Sequential:
    """Two layers of which the second sees what the first makes of its batch, as in training."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(2, 3, 1), BatchNorm(3, momentum=momentum), nn.Dropout(), BatchNorm(3))
    for layer in (network[1], network[3]):
        nn.init.uniform_(layer.weight, 0.5, 1.5)
    return network


def test_statistics_are_the_plain_mean_over_the_batches_and_no_longer_what_they_were():
    network = normed(momentum=0.25).train()
    batches = torch.randn(3, 4, 2, 5, 5, generator=torch.Generator().manual_seed(0))
    network(batches[0] * 100)  # what it saw before
    recompute_statistics(network, (network(batch) for batch in batches))
    assert not any(module.training for module in network.modules())
    assert [network[1].momentum, network[3].momentum] == [0.25, 0.1]
    first = [network[0](batch) for batch in batches]  # Dropout is off
    second = [normalised(each, network[1]) for each in first]
    for layer, seen in ((network[1], first), (network[3], second)):
        mean = torch.stack([each.mean((0, 2, 3)) for each in seen]).mean(0)
        variance = torch.stack([each.var((0, 2, 3)) for each in seen]).mean(0)
        torch.testing.assert_close(layer.running_mean, mean)
        torch.testing.assert_close(layer.running_var, variance)


def normalised(features: torch.Tensor, layer: BatchNorm) -> torch.Tensor:
    """By the statistics of its own batch."""
    copied = copy.deepcopy(layer).train()
    return copied(features).detach()


def test_statistics_of_an_average_are_those_of_a_look(stage, batch):
    recompute_statistics(stage.average, iter([stage.look(stage.average, batch)][:0]))
    fresh = state_of(stage.average)
    with torch.no_grad():
        recompute_statistics(stage.average, (stage.look(stage.average, batch) for _ in range(2)))
    now = changed(stage.average, fresh)
    means = {name for name, _ in stage.average.named_buffers() if name.endswith("running_mean")}
    assert means
    assert {name for name in now if name.endswith("running_mean")} == means
    assert all(name.split(".")[-1] in ("running_mean", "running_var", "num_batches_tracked") for name in now)
    for name, count in stage.average.named_buffers():
        if name.endswith("num_batches_tracked"):
            assert count == 2, name
