"""Latency against quality: a point for each variant, the machine's floors and PyTorch's time as lines."""

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from jokr_rt.bench.figures import PSNR_CAP
from jokr_rt.bench.tables import title, variant_name
from jokr_rt.bench.variants import LATENCY, TORCH
from jokr_rt.errors import OutputError, UsageError

_COLOURS = {"fp32": "tab:blue", "bf16": "tab:orange", "fp16": "tab:purple", "int8": "tab:green"}


def check_plot(path: Path) -> None:
    """Better before a benchmark than after. Raises UsageError for a kind of file that is not drawn, OutputError."""
    kinds = sorted(Figure().canvas.get_supported_filetypes())
    if path.suffix.removeprefix(".") not in kinds:
        raise UsageError(f"{path}: not a kind of picture; choose {', '.join(f'.{kind}' for kind in kinds)}")
    if not path.parent.is_dir():
        raise OutputError(f"{path.parent}: no such folder; create it first")


def plot(found: dict[str, Any], path: Path) -> None:
    """Draw a report of `jokr_rt.bench.results` into a file, of a kind that its name says. Raises OutputError."""
    figure = Figure(figsize=(10, 5.5), layout="constrained")
    axes = figure.subplots()
    ran = [row for row in found["variants"] if "skipped" not in row]
    for row in ran:
        if row["engine"] == TORCH:
            _line(axes, row["ms"], "PyTorch", "black")
        elif row["psnr_db"] is not None:
            colour = _COLOURS[row["precision"]]
            fill = colour if row["engine"] == "openvino" else "none"
            marker = "o" if row["mode"] == LATENCY else "^"
            axes.plot(row["ms"], row["psnr_db"], marker, color=colour, markerfacecolor=fill, label=variant_name(row))
    for precision, floor in found["floor"].get("ms", {}).items():
        _line(axes, floor, f"floor {precision}", _COLOURS[precision])
    axes.set(xscale="log", xlabel="ms a frame", ylabel=f"PSNR to fp32, dB ({PSNR_CAP:.0f}: exact)")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_title(title(found), pad=22)
    axes.grid(alpha=0.25)
    figure.legend(loc="outside right center")
    try:
        figure.savefig(path)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error}") from None


def _line(axes: Axes, milliseconds: float, label: str, colour: str) -> None:
    axes.axvline(milliseconds, color=colour, linestyle="--", alpha=0.7)
    axes.text(milliseconds, 1.01, label, transform=axes.get_xaxis_transform(), ha="center", fontsize=8)
