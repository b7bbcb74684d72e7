"""Motion programs: joint angles that every puppet of a family goes through, whatever its proportions."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Motion:
    """A motion program: one row of joint angles a frame, radians, and of places x and y, body lengths."""

    angles: dict[str, Floats]

    @classmethod
    def walk(cls, frames: int, seed: int = 0, gait: float = 1.0) -> "Motion":
        """`frames` poses of four legs that speed up, look about and wag. gait: strides per 16 frames, about."""
        random = np.random.default_rng(seed)
        phase = _phase(random, frames, gait, period=16)
        stride = 0.5 + 0.15 * _drift(random, frames)
        angles = {"body": 0.1 * np.sin(phase * 2) * 0.3 + 0.16 * _drift(random, frames)}
        for name, offset in (("near fore", 0.0), ("near hind", 0.55), ("far fore", 1.0), ("far hind", 1.55)):
            angles[name] = stride * np.sin(phase + np.pi * offset)
            angles[name + " knee"] = 0.75 * stride * (1 + np.cos(phase + np.pi * offset))
        angles["neck"] = 0.75 + 0.35 * _drift(random, frames)
        angles["head"] = 0.1 + 0.4 * _drift(random, frames)
        angles["tail"] = 2.4 + 0.5 * _drift(random, frames) + 0.25 * np.sin(phase)
        angles["x"] = 0.1 * _drift(random, frames)
        angles["y"] = 0.04 * np.sin(phase * 2) + 0.06 * _drift(random, frames)
        return cls(angles)

    @classmethod
    def stroll(cls, frames: int, seed: int = 0, gait: float = 1.0) -> "Motion":
        """`frames` poses of two legs and two arms that swing, with nods. gait: strides per 16 frames, about."""
        random = np.random.default_rng(seed)
        phase = _phase(random, frames, gait, period=16)
        stride = 0.5 + 0.15 * _drift(random, frames)
        angles = {"trunk": 0.08 + 0.14 * _drift(random, frames) + 0.03 * np.sin(phase * 2)}
        for side, offset in (("near", 0.0), ("far", np.pi)):
            swing = phase + offset
            angles[side + " thigh"] = stride * np.sin(swing)
            angles[side + " knee"] = 0.65 * stride * (1 + np.cos(swing))
            angles[side + " foot"] = 0.3 * np.sin(swing) - 0.25 * np.cos(swing)
            angles[side + " arm"] = -1.1 * stride * np.sin(swing) + 0.45 * _drift(random, frames)
            angles[side + " elbow"] = 0.65 - 0.3 * np.sin(swing) + 0.4 * _drift(random, frames)
        angles["neck"] = -0.1 + 0.3 * _drift(random, frames)
        angles["x"] = 0.2 * _drift(random, frames)
        angles["y"] = 0.05 * np.cos(phase * 2) + 0.1 * _drift(random, frames)
        return cls(angles)

    @classmethod
    def sway(cls, frames: int, seed: int = 0, gait: float = 1.0) -> "Motion":
        """`frames` poses of a stem in gusts of wind, its leaves and its blossom. gait: gusts per 24 frames, about."""
        random = np.random.default_rng(seed)
        phase = _phase(random, frames, gait, period=24)
        gust = 0.11 + 0.05 * _drift(random, frames)
        wind = 0.16 * _drift(random, frames)
        angles = {}
        for index, part in enumerate(("low", "middle", "high", "blossom")):
            angles[part] = wind + gust * np.sin(phase - 0.6 * index) + 0.1 * _drift(random, frames)
        for side in ("left", "right"):
            angles[side + " leaf"] = 1.0 + 0.3 * np.sin(phase - 1.5) + 0.35 * _drift(random, frames)
            angles[side + " tip"] = 0.45 + 0.2 * np.sin(phase - 2.2) + 0.35 * _drift(random, frames)
        angles["nod"] = 0.45 * _drift(random, frames) + 0.15 * np.sin(phase - 2.0)
        angles["open"] = 1 + 0.3 * _drift(random, frames)
        return cls(angles)

    def __len__(self) -> int:
        return len(next(iter(self.angles.values())))


Program = Callable[[int, int, float], Motion]
"""From a number of frames, a random seed and a speed to a motion."""


@dataclass(frozen=True)
class Walk:
    """How a motion program is played: its number of frames, its random seed and its speed; see `Motion`."""

    frames: int
    seed: int
    gait: float

    def motion(self, program: Program = Motion.walk) -> Motion:
        return program(self.frames, self.seed, self.gait)


TRAINING = Walk(192, seed=0, gait=1.0)
"""What `examples/puppets.py OUT --frames 192` writes, and models are trained on."""
TEST = Walk(96, seed=2026, gait=0.85)
"""Held out: what a trained model is measured on."""
PROBE = Walk(96, seed=7, gait=1.2)
"""Held out too: what fresh probes of a trained model, such as a domain classifier, are fitted on."""


def _phase(random: np.random.Generator, frames: int, gait: float, period: int) -> Floats:
    """Of a swing that is now faster, now slower: radians, `gait` turns in `period` frames, about."""
    speed = gait * (1 + 0.35 * _drift(random, frames))
    return np.asarray(np.cumsum(2 * np.pi / period * speed) + random.uniform(0, 2 * np.pi))


def _drift(random: np.random.Generator, frames: int) -> Floats:
    """A smooth random curve within [-1, 1]."""
    time = np.arange(frames) / 40
    waves = [np.sin(2 * np.pi * (time * random.uniform(0.3, 1.4) + random.uniform())) for _ in range(3)]
    return np.asarray(np.mean(waves, axis=0))


def towards(start: Floats, angle: Floats, length: float) -> Floats:
    """From places (T, 2) so far in directions (T,): radians, 0 to the right, counter-clockwise; y points down."""
    return start + length * np.stack([np.cos(angle), -np.sin(angle)], axis=-1)
