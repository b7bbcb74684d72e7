"""What cpu.py says of its results: the bars, and the README's section, rendered from the JSON alone."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from gpu_report import bar_table, markdown

from jokr_rt.bench.figures import Bar
from jokr_rt.bench.tables import title, variant_table
from jokr_rt.bench.variants import TORCH
from jokr_rt.errors import InputError

Found = dict[str, Any]
BEGIN, END = "<!-- `make bench` writes this -->", "<!-- up to here -->"
MEGABYTE = 1e6


def bars(reports: dict[str, Found]) -> list[Bar]:
    """Of the reports of "full" and "realtime", as `jokr_rt.bench.results` has them; the faster mode counts."""
    full = _rows(reports.get("full"))
    realtime = _rows(reports.get("realtime"))
    loop = "full int8, file to file"
    return [
        Bar("full int8, inference against PyTorch eager", _most(full, "ratio_to_eager", "int8"), 6.5, "times"),
        Bar("full int8, PSNR to fp32", _least(full, "psnr_db", "int8"), 42, "dB"),
        Bar("full bf16, inference against PyTorch eager", _most(full, "ratio_to_eager", "bf16"), 4.2, "times"),
        Bar("full bf16, PSNR to fp32", _least(full, "psnr_db", "bf16"), 55, "dB"),
        Bar(f"{loop} against the loop a user would write", _most(full, "end_to_end_ratio", "int8"), 6, "times"),
        Bar(loop, _most(full, "end_to_end_fps", "int8"), 33, "fps"),
        Bar("full fp32, best engine against PyTorch eager", _most(full, "ratio_to_eager", "fp32"), 2.1, "times"),
        Bar("full int8, distance to the floor", _least(full, "ratio_to_floor", "int8"), 1.4, "times", True),
        Bar("full bf16, distance to the floor", _least(full, "ratio_to_floor", "bf16"), 1.15, "times", True),
        Bar("realtime int8, file to file", _most(realtime, "end_to_end_fps", "int8"), 90, "fps"),
        Bar("full int8, peak memory of `jokr run`", _megabytes(_least(full, "peak_bytes", "int8")), 450, "MB", True),
    ]


def section(reports: dict[str, Found]) -> str:
    """The README's: a table for each report, and the bars, in Markdown."""
    parts = [_about(next(iter(reports.values())))]
    for report in reports.values():
        table = variant_table(report)
        parts.append(f"**{title(report)}**")
        parts.append(markdown(table.header, (dict(zip(table.header, row.cells, strict=True)) for row in table.rows)))
    parts.append(bar_table(bar.to_json() for bar in bars(reports)))
    return "\n\n".join(parts)


def rewritten(readme: str, reports: dict[str, Found]) -> str:
    """A README with the section between `BEGIN` and `END` made anew. Raises InputError where these are not there."""
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise InputError(f"README.md: the lines {BEGIN} and {END} are not there; put them around the table to be made")
    return f"{before}{begin}\n\n{section(reports)}\n\n{end}{after}"


def result_path(folder: Path, name: str) -> Path:
    """Where the results of a model are."""
    return folder / f"cpu-{name}.json"


def _about(report: Found) -> str:
    machine, versions, commit = report["machine"], report["versions"], report["revision"]
    code = "" if commit is None else f", commit {commit['commit'][:7]}{' with changes' if commit['is_changed'] else ''}"
    packages = ", ".join(f"{name} {number}" for name, number in versions.items() if name != "jokr-rt")
    busy = "" if report["busy"] is None else f" Other programs took {report['busy']:.0%} of the processor at its start."
    return f"{machine['cores']} cores of an {machine['processor']}, {report['date']}{code}; {packages}.{busy}"


def _rows(report: Found | None) -> list[Found]:
    return [row for row in report["variants"] if row["engine"] != TORCH] if report else []


def _values(rows: Iterable[Found], name: str, precision: str) -> list[float]:
    found = (row.get(name) for row in rows if row["precision"] == precision)
    return [value for value in found if value is not None]


def _most(rows: Iterable[Found], name: str, precision: str) -> float | None:
    return max(_values(rows, name, precision), default=None)


def _least(rows: Iterable[Found], name: str, precision: str) -> float | None:
    return min(_values(rows, name, precision), default=None)


def _megabytes(nbytes: float | None) -> float | None:
    return None if nbytes is None else nbytes / MEGABYTE
