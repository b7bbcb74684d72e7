"""Training that has failed is noticed; a healthy run is left alone. The figures are those of real runs."""

from dataclasses import replace

import pytest
import torch

from jokr_rt.training.guard import EXPLODED_STEPS, SHOWN_STEPS, WARM_UP, Guard
from jokr_rt.training.sights import Sights, measure_sights

HEALTHY = Sights(spread=(0.2, 0.15), silhouette=(0.17, 0.11), true_silhouette=(0.13, 0.08), contrast=(1.0, 0.6))
CALM = {"matching": 0.002, "cycle": 0.1, "confusion": 0.0005, "adversarial": 0.5}


def begun(steps: int = WARM_UP) -> Guard:
    guard = Guard(("cat", "fox"))
    for step in range(1, steps + 1):
        assert guard.watch(step, CALM, HEALTHY) is None
    return guard


def said(guard: Guard, losses: dict[str, float], sights: Sights, steps: int) -> list[str | None]:
    found = [guard.watch(WARM_UP + index + 1, losses, sights) for index in range(steps)]
    return [fault and fault.what for fault in found]


@pytest.mark.parametrize("begin", [1, WARM_UP])
@pytest.mark.parametrize(
    ("name", "value"),
    [("matching", 4254), ("matching", 495), ("cycle", 2_906_079), ("confusion", 31_204), ("confusion", 195_237)],
)
def test_a_loss_that_explodes_is_a_fault_if_it_lasts(begin, name, value):
    guard = begun(begin)
    *before, last = said(guard, CALM | {name: value}, HEALTHY, EXPLODED_STEPS)
    assert before == [None] * (EXPLODED_STEPS - 1)
    assert last == f"the {name} loss has exploded to {value:.4g}, more than 100 times 1"
    assert guard.suspects


def test_one_that_recovers_is_none_and_counting_begins_anew():
    guard = begun()
    for _ in range(3):
        assert said(guard, CALM | {"matching": 4254.0}, HEALTHY, EXPLODED_STEPS - 1) == [None] * (EXPLODED_STEPS - 1)
        assert guard.suspects
        assert guard.at_the_end() is not None
        assert guard.watch(99, CALM, HEALTHY) is None
        assert not guard.suspects
        assert guard.at_the_end() is None


def test_losses_near_zero_may_grow_a_thousandfold_and_large_ones_stay_large():
    guard = begun()
    assert said(guard, CALM | {"matching": 2.0, "confusion": 14.0}, HEALTHY, 100) == [None] * 100
    large = Guard(("cat", "fox"))
    assert all(large.watch(step, {"pixels": 90.0}) is None for step in range(1, 100))
    assert all(large.watch(step, {"pixels": 8_000.0}) is None for step in range(100, 200))


def test_what_is_not_a_number_is_a_fault_at_once():
    fault = begun().watch(WARM_UP + 1, CALM | {"cycle": float("nan")})
    assert fault is not None
    assert fault.what == "the cycle loss is nan"


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        ({"spread": (0.2, 0.001)}, "all keypoints of fox lie on one spot"),
        ({"silhouette": (0.0, 0.11)}, "the silhouettes drawn of cat are empty"),
        ({"silhouette": (0.17, 0.99)}, "the silhouettes drawn of fox are full"),
        ({"contrast": (0.004, 0.6)}, "the pictures drawn of cat have one colour"),
    ],
)
def test_what_a_step_shows_is_a_fault_if_it_lasts_after_a_warm_up(broken, words):
    sights = replace(HEALTHY, **broken)
    fresh = Guard(("cat", "fox"))
    assert all(fresh.watch(step, CALM, sights) is None and not fresh.suspects for step in range(1, WARM_UP + 1))
    assert said(begun(), CALM, sights, SHOWN_STEPS) == [None] * (SHOWN_STEPS - 1) + [words]


@pytest.mark.parametrize("area", [0.019, 51.0, -0.7, 0.0, float("nan")])
def test_a_map_that_collapses_is_a_fault_if_it_lasts_from_the_first_step_on(area):
    for begin in (0, WARM_UP):
        guard = begun(begin)
        found = [guard.watch(begin + index, CALM, HEALTHY, area) for index in range(1, SHOWN_STEPS + 1)]
        assert found[:-1] == [None] * (SHOWN_STEPS - 1)
        assert found[-1] is not None
        assert found[-1].what == f"the map between cat and fox has collapsed (it changes areas {area:.2g} times)"
        assert "--mirror or --no-mirror" in found[-1].hint
        assert guard.suspects


def test_a_map_that_recovers_is_no_fault_nor_is_one_between_a_mouse_and_an_elephant():
    guard = begun()
    for area in (*[0.0] * (SHOWN_STEPS - 1), 0.021, *[-1.0] * (SHOWN_STEPS - 1), 49.0):
        assert guard.watch(99, CALM, HEALTHY, area) is None
    assert not guard.suspects
    guard.watch(99, CALM, HEALTHY, 0.0)
    fault = guard.at_the_end()
    assert fault is not None
    assert "has collapsed" in fault.what


def test_without_masks_full_silhouettes_are_right():
    whole = replace(HEALTHY, silhouette=(1.0, 1.0), true_silhouette=(1.0, 1.0))
    assert said(begun(), CALM, whole, 50) == [None] * 50


def test_sights_are_measured_of_each_video():
    keypoints = torch.zeros(4, 2, 2)
    keypoints[:2, :, 0] = torch.tensor([-0.5, 0.5])
    masks = torch.zeros(4, 1, 4, 4)
    masks[..., :2] = 1
    silhouettes = torch.cat([masks[:2] / 2, torch.ones(2, 1, 4, 4)])
    targets = masks.expand(4, 3, 4, 4) * 2 - 1
    images = torch.cat([targets[:2] / 4, torch.full((2, 3, 4, 4), 0.25)])
    sights = Sights(*measure_sights(keypoints, silhouettes, masks, images, targets).tolist())
    assert sights.spread == [0.5, 0.0]
    assert sights.silhouette == [0.25, 1.0]
    assert sights.true_silhouette == [0.5, 0.5]
    assert sights.contrast == [0.25, 0.0]
