"""How long the stages of a stream take, in constant memory for a stream of any length."""

import math
import os
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

import numpy as np

_SHORTEST, _STEP, _BINS = 1e-6, math.log(1.02), 1200  # 2 % a bin, from 1 microsecond to past 5 hours


class Histogram:
    """Durations counted in bins 2 % apart, so that a percentile is right to about 1 %."""

    def __init__(self) -> None:
        self._counts = np.zeros(_BINS, np.int64)

    def add(self, seconds: float) -> None:
        position = math.log(max(seconds, _SHORTEST) / _SHORTEST) / _STEP
        self._counts[min(int(position), _BINS - 1)] += 1

    def percentile(self, percent: float) -> float:
        """The duration in seconds that `percent` of the durations do not exceed; at least one was added."""
        ranks = np.cumsum(self._counts)
        position = int(np.searchsorted(ranks, max(1, math.ceil(percent / 100 * ranks[-1]))))
        return _SHORTEST * math.exp((position + 0.5) * _STEP)

    def milliseconds(self) -> dict[str, float]:
        """p50, p95 and p99; at least one was added."""
        return {f"p{percent}": round(1e3 * self.percentile(percent), 3) for percent in (50, 95, 99)}

    def copy(self) -> "Histogram":
        return self.since(Histogram())

    def since(self, earlier: "Histogram") -> "Histogram":
        """What was added after `earlier`, a copy from then."""
        later = Histogram()
        later._counts = self._counts - earlier._counts
        return later

    @property
    def is_empty(self) -> bool:
        return not self._counts.any()


class Timings:
    """A histogram for each stage. Any thread may measure any of them."""

    def __init__(self) -> None:
        self._stages: defaultdict[str, Histogram] = defaultdict(Histogram)
        self._adding = Lock()

    def add(self, stage: str, seconds: float) -> None:
        """Count one duration."""
        with self._adding:
            self._stages[stage].add(seconds)

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Count the time that the block takes, unless it raises."""
        start = time.perf_counter()
        yield
        self.add(stage, time.perf_counter() - start)

    def milliseconds(self) -> dict[str, dict[str, float]]:
        """p50, p95 and p99 of every stage, in the order the stages were first measured."""
        return {stage: histogram.milliseconds() for stage, histogram in self._stages.items()}


def process_age() -> float | None:
    """Seconds since this process was created, to a hundredth; None where the system does not tell (it is not Linux)."""
    try:
        after_name = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        started = int(after_name[19]) / os.sysconf("SC_CLK_TCK")  # field 22: since the machine started
        return time.clock_gettime(time.CLOCK_BOOTTIME) - started
    except (OSError, AttributeError, ValueError, IndexError):
        return None
