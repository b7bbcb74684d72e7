"""The arithmetic and the tables of gpu.py: statistics and bars. cpu.py has its tables from here, too."""

import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from jokr_rt.bench.figures import Bar, ratio

Row = dict[str, Any]


def median_per_call(milliseconds: Sequence[float], calls: int) -> float:
    """The median over repeats of `calls` calls each."""
    return statistics.median(milliseconds) / calls


def sampler_bytes(shape: Sequence[int], itemsize: int) -> int:
    """Bytes that the sampler must move for heatmaps (N, C, H, W): all of them in, as many out, and theta in float32."""
    batch, channels, height, width = shape
    return 2 * batch * channels * height * width * itemsize + batch * 6 * 4


def kernel_bars(rows: Iterable[Row]) -> list[Bar]:
    """Of rows with "dtype", "batch", "of_copy" (fraction of a copy's bandwidth) and times "<way>_ms"."""
    found = {(row["dtype"], row["batch"]): row for row in rows}
    bars = []
    for dtype in ("float32", "float16"):
        most = found.get((dtype, 256), {})
        single = found.get((dtype, 1), {})
        bars.append(Bar(f"kernel {dtype}, N = 256: of a copy's bandwidth", _percent(most.get("of_copy")), 80, "%"))
        for way, least in (("eager", 3), ("compiled", 2)):
            times = ratio(single.get(f"{way}_ms"), single.get("launched_ms"))
            bars.append(Bar(f"kernel {dtype}, N = 1: against the {way} pair", times, least, "times"))
    return bars


def frame_bars(rows: Iterable[Row]) -> list[Bar]:
    """Of rows with "engine", "precision" and "p50": the best engine in fp16, and the faster of PyTorch's eager runs."""
    measured = [row for row in rows if "p50" in row]
    best = min((row["p50"] for row in measured if row["precision"] == "fp16"), default=None)
    eager = min((row["p50"] for row in measured if row["engine"] == EAGER), default=None)
    return [
        Bar("frame, fp16, p50 of the best engine", best, 0.5, "ms", is_lower_better=True),
        Bar("frame, fp16, best engine against PyTorch eager", ratio(eager, best), 8, "times"),
    ]


EAGER = "torch eager"


def markdown(columns: Sequence[str], rows: Iterable[Row]) -> str:
    """The columns' cells of each row; what a row says it skipped stands in its last cell."""
    lines = [list(columns), ["---"] * len(columns)]
    for row in rows:
        cells = [_cell(row.get(column)) for column in columns]
        lines.append([*cells[:-1], f"skipped: {row['skipped']}"] if "skipped" in row else cells)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def bar_table(bars: Iterable[Row]) -> str:
    """Of bars as JSON has them."""
    limits = ({"limit": f"at most {bar['at_most']:g}" if "at_most" in bar else f"at least {bar['at_least']:g}"} | bar
              for bar in bars)  # fmt: skip
    return markdown(("name", "value", "limit", "unit", "verdict"), limits)


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _percent(fraction: float | None) -> float | None:
    return None if fraction is None else fraction * 100
