"""How fast is this on a processor? `jokr bench` of the demo's bundle and of untrained models of both presets.

Writes benchmarks/results/cpu-NAME.json and .png, rewrites the README's table from all results that are there, and
prints the bars. `make bench` runs it.

    python benchmarks/cpu.py [--only demo,full,realtime] [--repeats 50]
"""

import json
from pathlib import Path
from typing import Any

import click
from cpu_report import bars, result_path, rewritten
from gpu_report import bar_table
from harness import Program, names_in, write_json

from jokr_rt.bench.benchmark import REPEATS, benchmark
from jokr_rt.bench.plot import plot
from jokr_rt.bench.presets import preset_subject
from jokr_rt.bench.processes import Processes
from jokr_rt.bench.results import Subject
from jokr_rt.bundle import open_bundle
from jokr_rt.config import PRESETS
from jokr_rt.console import benchmark_tables, build_progress, print_tables
from jokr_rt.engines import Monitor

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
RESULTS = ROOT / "benchmarks" / "results"
DEMO = "demo"
NAMES = [DEMO, *PRESETS]


def measure(name: str, repeats: int) -> dict[str, Any]:
    """The report of one of `NAMES`."""
    with build_progress() as monitor, Processes() as processes:
        return benchmark(_subject(name, processes, monitor), processes, monitor, repeats=repeats)


def read_reports() -> dict[str, dict[str, Any]]:
    """Those that were written, by name."""
    paths = {name: result_path(RESULTS, name) for name in NAMES}
    return {name: json.loads(path.read_text(encoding="utf-8")) for name, path in paths.items() if path.exists()}


def _subject(name: str, processes: Processes, monitor: Monitor) -> Subject:
    if name == DEMO:
        return Subject("the demo's model", open_bundle(ROOT / "examples" / "puppets.jokr"))
    return preset_subject(name, processes, monitor)


@click.command(cls=Program, help=__doc__)
@click.option("--only", default="", metavar="NAME,...", help=f"Of {', '.join(NAMES)}.")
@click.option("--repeats", type=click.IntRange(min=1), default=REPEATS, show_default=True, help="Of a frame, timed.")
def main(only: str, repeats: int) -> None:
    RESULTS.mkdir(exist_ok=True)
    for name in names_in(only, NAMES, "--only"):
        click.echo(name, err=True)
        found = measure(name, repeats)
        path = result_path(RESULTS, name)
        write_json(path, found)
        plot(found, path.with_suffix(".png"))
        print_tables(*benchmark_tables(found))
        click.echo()
    reports = read_reports()
    README.write_text(rewritten(README.read_text(encoding="utf-8"), reports), encoding="utf-8")
    click.echo(bar_table(bar.to_json() for bar in bars(reports)))


if __name__ == "__main__":
    main()
