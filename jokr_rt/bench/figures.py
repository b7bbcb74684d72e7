"""The arithmetic of benchmarks: percentiles, the machine's floor, PSNR, and bars."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

PSNR_CAP = 100.0  # dB; two equal pictures would have infinitely many


def percentiles(milliseconds: Sequence[float]) -> dict[str, float]:
    """p50, p95 and p99: the smallest value that so many percent of all do not exceed."""
    ordered = sorted(milliseconds)
    return {f"p{percent}": ordered[-(-percent * len(ordered) // 100) - 1] for percent in (50, 95, 99)}


def ratio(over: float | None, under: float | None) -> float | None:
    """None where one of both was not measured."""
    return None if over is None or under is None else over / under


@dataclass(frozen=True)
class Floor:
    """The least time of one frame: its arithmetic at the measured peak, or its bytes at the measured bandwidth.

    flops: of one frame, a multiplication and an addition being two. nbytes: of weights, frame and image, moved once.
    peak: FLOP/s. bandwidth: bytes/s.
    """

    flops: float
    nbytes: float
    peak: float
    bandwidth: float

    @property
    def compute_ms(self) -> float:
        return self.flops / self.peak * 1e3

    @property
    def memory_ms(self) -> float:
        return self.nbytes / self.bandwidth * 1e3

    @property
    def ms(self) -> float:
        return max(self.compute_ms, self.memory_ms)

    def to_json(self) -> dict[str, float]:
        return {"flops": self.flops, "bytes": self.nbytes, "compute_ms": self.compute_ms, "memory_ms": self.memory_ms}


@dataclass(frozen=True)
class Bar:
    """What was hoped for. value: None where it was not measured."""

    name: str
    value: float | None
    bar: float
    unit: str
    is_lower_better: bool = False

    @property
    def verdict(self) -> str:
        if self.value is None:
            return "not measured"
        met = self.value <= self.bar if self.is_lower_better else self.value >= self.bar
        return "met" if met else "missed"

    def to_json(self) -> dict[str, Any]:
        limit = {"at_most" if self.is_lower_better else "at_least": self.bar}
        return {"name": self.name, "value": self.value, "unit": self.unit, **limit, "verdict": self.verdict}


def psnr_db(drawn: NDArray[np.uint8], wanted: NDArray[np.uint8]) -> float:
    """Of all pixels of all pictures together, at most `PSNR_CAP`, which equal pictures have."""
    squared = float(np.mean((drawn.astype(np.float64) - wanted) ** 2))
    return PSNR_CAP if squared == 0 else min(PSNR_CAP, 10 * math.log10(255**2 / squared))
