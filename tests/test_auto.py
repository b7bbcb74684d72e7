"""What is chosen for a machine, by a pace that the tests make up: no test depends on how fast this one is."""

import math
from types import SimpleNamespace

import pytest
import torch

from jokr_rt.config import PRESETS, ModelConfig
from jokr_rt.errors import UsageError
from jokr_rt.training import auto
from jokr_rt.training.auto import choose_options, choose_precision, measure_pace
from jokr_rt.training.command import _choose
from jokr_rt.training.losses import LossWeights
from jokr_rt.training.options import Pace, TrainOptions

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
PACES = {  # seconds of a step: at 40 and 30 and 30 percent, 1 for the presets of 256 pixels; 0.25 for the small one
    256: Pace(geometry=0.55, coarse=0.6, texture=2.0),
    128: Pace(geometry=0.1, coarse=0.0, texture=0.35),
}


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[TrainOptions]:
    """What was measured, on a machine of that pace that has bf16."""
    found: list[TrainOptions] = []

    def pace(options: TrainOptions, device: torch.device) -> Pace:
        found.append(options)
        return PACES[options.config.size]

    monkeypatch.setattr(auto, "measure_pace", pace)
    monkeypatch.setattr(auto, "choose_precision", lambda device: "bf16")
    return found


@pytest.fixture
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("measure_pace", "choose_precision"):
        monkeypatch.setattr(auto, name, lambda *given: pytest.fail("measured"))


@pytest.mark.parametrize(
    ("minutes", "preset", "steps"),
    [(90, "realtime", 5400), (66, "realtime", 4000), (60, "small", 14400), (16, "small", 3800), (0.1, "small", 100)],
)
def test_the_largest_preset_is_chosen_of_which_enough_steps_fit_into_the_minutes(measured, minutes, preset, steps):
    choice = choose_options({}, minutes, CPU)
    options = choice.options
    assert (choice.preset, options.config, options.steps) == (preset, PRESETS[preset], steps)
    assert choice.pace == PACES[options.config.size]
    assert options.coarse == (0.5 if preset == "realtime" else 0.0)  # the small one's size cannot be halved
    if steps > 100:
        assert choice.pace.seconds(options) == pytest.approx(60 * minutes, abs=0.5 * 100)


def test_a_gpu_gets_the_full_one(measured):
    choice = choose_options({}, 10, CUDA)
    assert (choice.preset, choice.options.config, choice.options.steps) == ("full", PRESETS["full"], 600)


def test_what_is_given_is_kept_and_none_is_not_given(measured):
    given = {"config": PRESETS["full"], "geometry": 0.25, "batch": 4, "lr": 1e-3, "weights": LossWeights(cycle=7.0)}
    choice = choose_options(given | dict.fromkeys(("steps", "coarse", "precision", "mirror")), 50, CPU)
    assert choice.preset == ""
    per_step = 0.25 * 0.55 + 0.375 * 0.6 + 0.375 * 2.0
    steps = round(3000 / per_step / 100) * 100
    assert choice.options == TrainOptions(**given, coarse=0.5, precision="bf16", steps=steps)
    assert [options.batch for options in measured] == [4]


@pytest.mark.parametrize("steps", [500, 1000, 10**6])
def test_given_steps_choose_no_smaller_preset(measured, steps):
    choice = choose_options({"steps": steps}, 60, CPU)
    assert (choice.preset, choice.options.steps, len(measured)) == ("realtime", steps, 1)
    assert choice.pace == PACES[256]


def test_short_runs_are_not_worth_asking(unmeasured):
    choice = choose_options({"steps": 499}, 60, CPU)
    assert (choice.preset, choice.options.steps, choice.options.precision) == ("realtime", 499, "fp32")
    assert choice.pace is None
    assert choose_options({"steps": 499, "precision": "bf16"}, 60, CPU).options.precision == "bf16"


def test_a_precision_that_is_given_is_not_asked_for(measured, monkeypatch):
    monkeypatch.setattr(auto, "choose_precision", lambda device: pytest.fail("measured"))
    assert choose_options({"precision": "fp32"}, 60, CPU).options.precision == "fp32"


@pytest.mark.parametrize(("coarse", "preset"), [(0.3, "realtime"), (0.0, "small")])
def test_a_given_coarse_share_leaves_out_presets_that_cannot_be_halved(measured, coarse, preset):
    choice = choose_options({"coarse": coarse}, 30, CPU)
    assert (choice.preset, choice.options.coarse) == (preset, coarse)


@pytest.mark.parametrize("minutes", [0.0, -1.0, math.nan, math.inf])
def test_minutes_that_cannot_be_meant(unmeasured, minutes):
    with pytest.raises(UsageError, match="minutes must be positive, not "):
        choose_options({}, minutes, CPU)


@pytest.mark.parametrize(("bf16", "fp32", "chosen"), [(1.0, 1.3, "bf16"), (1.0, 1.1, "fp32"), (3.0, 1.0, "fp32")])
def test_bf16_must_be_measured_to_be_much_faster(monkeypatch, bf16, fp32, chosen):
    def seconds(action, device):
        seen: list[torch.dtype] = []
        convolve = torch.nn.functional.conv2d

        def note(*given):
            found = convolve(*given)
            seen.append(found.dtype)
            return found

        with monkeypatch.context() as patch:
            patch.setattr(torch.nn.functional, "conv2d", note)
            action()
        return {torch.bfloat16: bf16, torch.float32: fp32}[seen[0]]

    monkeypatch.setattr(auto, "_median_seconds", seconds)
    assert choose_precision(CPU) == chosen


def test_the_first_time_does_not_count_and_the_median_of_the_others_does(monkeypatch):
    at, durations = [0.0], iter([100.0, 5.0, 1.0, 2.0])

    def act() -> None:
        at[0] += next(durations)

    monkeypatch.setattr(auto, "time", SimpleNamespace(perf_counter=lambda: at[0]))
    assert auto._median_seconds(act, CPU) == 2.0


@pytest.mark.parametrize("coarse", [0.5, 0.0])
def test_steps_of_both_stages_and_sizes_are_measured_and_chance_goes_on_as_if_nothing_had_been(monkeypatch, coarse):
    config = ModelConfig(keypoints=4, size=128, width=1 / 16, extractor_size=64)
    options = TrainOptions(config=config, coarse=coarse, batch=2, weights=LossWeights(perceptual=0.0))
    found = []

    def seconds(action, device):
        found.append(set(action()))
        return float(len(found))

    monkeypatch.setattr(auto, "_median_seconds", seconds)
    before = torch.get_rng_state()
    pace = measure_pace(options, CPU)
    assert torch.equal(torch.get_rng_state(), before)
    assert pace == (Pace(1.0, 2.0, 3.0) if coarse else Pace(1.0, 0.0, 2.0))
    first, *others = found
    assert "matching" in first
    assert all({"reconstruction", "discriminator"} <= each for each in others)


def test_what_was_chosen_is_said(measured):
    said: list[str] = []
    _choose({}, 60, CPU, said.append)
    assert said == [
        "chosen for this machine: preset small (--preset full or realtime): 128 x 128 pixels, width 0.375, "
        "14 keypoints; precision bf16; 14400 steps (--minutes, --steps)",
        "14400 steps will take about 60 minutes",
    ]
    said.clear()
    _choose({"config": PRESETS["full"], "steps": 1000, "precision": "fp32"}, 60, CPU, said.append)
    assert said == ["1000 steps will take about 17 minutes"]
