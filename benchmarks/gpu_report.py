"""The arithmetic and the tables of gpu.py: statistics, floors, bars. Plain Python, for a machine with little on it."""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

Row = dict[str, Any]


def percentiles(milliseconds: Sequence[float]) -> dict[str, float]:
    """p50, p95 and p99: the smallest value that so many percent of all do not exceed."""
    ordered = sorted(milliseconds)
    return {f"p{percent}": ordered[-(-percent * len(ordered) // 100) - 1] for percent in (50, 95, 99)}


def median_per_call(milliseconds: Sequence[float], calls: int) -> float:
    """The median over repeats of `calls` calls each."""
    return statistics.median(milliseconds) / calls


def sampler_bytes(shape: Sequence[int], itemsize: int) -> int:
    """Bytes that the sampler must move for heatmaps (N, C, H, W): all of them in, as many out, and theta in float32."""
    batch, channels, height, width = shape
    return 2 * batch * channels * height * width * itemsize + batch * 6 * 4


@dataclass(frozen=True)
class Floor:
    """The least time of one frame: its arithmetic at the measured peak, or its bytes at the measured bandwidth.

    flops: of one frame, a multiplication and an addition being two. nbytes: of weights, frame and image, moved once.
    peak: FLOP/s. bandwidth: bytes/s, read and written.
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

    def to_json(self) -> Row:
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

    def to_json(self) -> Row:
        limit = {"at_most" if self.is_lower_better else "at_least": self.bar}
        return {"name": self.name, "value": self.value, "unit": self.unit, **limit, "verdict": self.verdict}


def kernel_bars(rows: Iterable[Row]) -> list[Bar]:
    """Of rows with "dtype", "batch", "of_copy" (fraction of a copy's bandwidth) and times "<way>_ms"."""
    found = {(row["dtype"], row["batch"]): row for row in rows}
    bars = []
    for dtype in ("float32", "float16"):
        most = found.get((dtype, 256), {})
        single = found.get((dtype, 1), {})
        bars.append(Bar(f"kernel {dtype}, N = 256: of a copy's bandwidth", _percent(most.get("of_copy")), 80, "%"))
        for way, least in (("eager", 3), ("compiled", 2)):
            ratio = _ratio(single.get(f"{way}_ms"), single.get("launched_ms"))
            bars.append(Bar(f"kernel {dtype}, N = 1: against the {way} pair", ratio, least, "times"))
    return bars


def frame_bars(rows: Iterable[Row]) -> list[Bar]:
    """Of rows with "engine", "precision" and "p50": the best engine in fp16, and the faster of PyTorch's eager runs."""
    measured = [row for row in rows if "p50" in row]
    best = min((row["p50"] for row in measured if row["precision"] == "fp16"), default=None)
    eager = min((row["p50"] for row in measured if row["engine"] == EAGER), default=None)
    return [
        Bar("frame, fp16, p50 of the best engine", best, 0.5, "ms", is_lower_better=True),
        Bar("frame, fp16, best engine against PyTorch eager", _ratio(eager, best), 8, "times"),
    ]


EAGER = "torch eager"


def markdown(columns: Sequence[str], rows: Iterable[Row]) -> str:
    """The columns' cells of each row; what a row says it skipped stands in its last cell."""
    lines = [list(columns), ["---"] * len(columns)]
    for row in rows:
        cells = [_cell(row.get(column)) for column in columns]
        lines.append([*cells[:-1], f"skipped: {row['skipped']}"] if "skipped" in row else cells)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _ratio(slow: float | None, fast: float | None) -> float | None:
    return None if slow is None or fast is None else slow / fast


def _percent(fraction: float | None) -> float | None:
    return None if fraction is None else fraction * 100
