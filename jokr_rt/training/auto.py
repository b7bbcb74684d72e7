"""What `jokr train` chooses where nothing is said: by what this machine does in a step, measured once."""

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from jokr_rt.config import PRESETS
from jokr_rt.errors import UsageError
from jokr_rt.training import distributed
from jokr_rt.training.data import Clip
from jokr_rt.training.geometry import GeometryStage
from jokr_rt.training.networks import Model
from jokr_rt.training.options import Pace, TrainOptions
from jokr_rt.training.perception import Features
from jokr_rt.training.stage import placed
from jokr_rt.training.texture import TextureStage
from jokr_rt.training.views import GeometryLoader, TextureLoader

FASTER = 1.2  # so many times as fast bf16 must be, for it is less exact
ENOUGH_STEPS = 4000  # of both stages, for pictures worth looking at
COARSE = 0.5  # share of the texture's steps, where the size allows it
ASKED_STEPS = 500  # fewer are done before it is known how long they take
REPEATS = 3


def choose_precision(device: torch.device) -> str:
    """ "bf16" where a convolution and its gradient take much less time than in fp32, else "fp32"."""
    layer = placed(nn.Conv2d(64, 128, 4, stride=2, padding=1), device)
    count = 256 if device.type == "cuda" else 8  # fewer keep no GPU busy: launches would be compared
    images = torch.zeros(count, 64, 64, 64, device=device).to(memory_format=torch.channels_last)

    def seconds(enabled: bool) -> float:
        def convolve() -> None:
            with torch.autocast(device.type, torch.bfloat16, enabled=enabled):
                layer(images).float().sum().backward()

        return _median_seconds(convolve, device)

    return "bf16" if seconds(enabled=True) * FASTER < seconds(enabled=False) else "fp32"


@dataclass(frozen=True)
class Choice:
    """preset: its name, or "" where the model was given. pace: None where a run is too short to ask."""

    options: TrainOptions
    preset: str
    pace: Pace | None


def choose_options(given: dict[str, Any], minutes: float, device: torch.device) -> Choice:
    """Options for this machine.

    given: fields of TrainOptions; of `config`, `steps`, `coarse` and `precision` those that are None or left out are
    chosen: the largest preset that this machine trains well, and as many steps as it takes `minutes` for. Where `steps`
    are given, the machine's pace does not choose the preset. Raises UsageError.
    """
    if not 0 < minutes < math.inf:
        raise UsageError(f"minutes must be positive, not {minutes}")
    given = {name: value for name, value in given.items() if value is not None}
    if given.get("steps", ENOUGH_STEPS) < ASKED_STEPS:
        given = {"precision": "fp32", **given}
    if "precision" not in given:
        given["precision"] = choose_precision(device)
    names = [""] if "config" in given else ["full"] if device.type == "cuda" else ["realtime", "small"]
    if given.get("coarse"):
        names = [name for name in names if not name or PRESETS[name].can_be_halved]
    for name in names:
        config = given.get("config") or PRESETS[name]
        options = TrainOptions(**{"coarse": COARSE * config.can_be_halved} | given | {"config": config})
        if options.steps < ASKED_STEPS:
            return Choice(options, name, None)
        pace = measure_pace(options, device)
        if "steps" in given:
            break
        per_step = pace.seconds(replace(options, steps=1000)) / 1000
        options = replace(options, steps=max(100, round(60 * minutes / per_step / 100) * 100))
        if options.steps >= ENOUGH_STEPS:
            break
    return Choice(options, name, pace)


def measure_pace(options: TrainOptions, device: torch.device) -> Pace:
    """Of steps on pictures of noise; the random state stays as it was."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        model = placed(Model(options.config), device)
        config, count = options.config, options.batch
        noise = torch.randint(0, 256, (4, 4, config.size, config.size), dtype=torch.uint8)
        clips = Clip("", noise, True), Clip("", noise, True)
        first = GeometryStage(model, options.weights, torch.eye(2, 3), options.precision, device)
        views = GeometryLoader(
            clips, count, 0, device, size=config.extractor_size, neighbours=options.weights.temporal > 0
        )
        geometry = _median_seconds(lambda: first.step(views.make(0), 1.0), device)
        features = Features() if options.weights.perceptual else None
        second = TextureStage(model, first.average, features, options.weights, options.precision, device)

        def texture(coarse: bool) -> float:
            loader = TextureLoader(clips, count, 0, device, coarse=lambda step: coarse)
            return _median_seconds(lambda: second.step(loader.make(0), 1.0), device)

        return Pace(geometry, texture(coarse=True) if options.coarse else 0.0, texture(coarse=False))


def _median_seconds(action: Callable[[], object], device: torch.device) -> float:
    """Of an action that was done once before; the mean over the processes."""
    action()
    found = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        action()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        found.append(time.perf_counter() - start)
    return float(distributed.mean(torch.tensor(statistics.median(found), device=device)))
