"""The command line of `jokr bench`. What measures is imported when it is called, not before."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from jokr_rt.config import PRESETS
from jokr_rt.errors import UsageError, missing_extra

if TYPE_CHECKING:
    from jokr_rt.bench.processes import Processes
    from jokr_rt.bench.results import Subject
    from jokr_rt.engines import Monitor

_PATH = click.Path(path_type=Path)
_LEAST_REPEATS = 30  # p95 of fewer says nothing


@click.command()
@click.argument("bundle", metavar="[BUNDLE]", required=False, type=_PATH)
@click.option("--preset", type=click.Choice(list(PRESETS)), help="An untrained model of this size, instead of BUNDLE.")
@click.option("--engine", "engines", multiple=True, metavar="NAME", help="May be repeated.  [default: all without GPU]")
@click.option("--precision", "precisions", multiple=True, metavar="NAME", help="May be repeated.  [default: all]")
@click.option("--input", "source", metavar="CLIP", type=_PATH, help="Video to run, whole.  [default: one it films]")
@click.option(
    "--repeats", type=click.IntRange(min=_LEAST_REPEATS), default=50, show_default=True, help="Of a frame, timed."
)
@click.option("--plot", "picture", metavar="FILE", type=_PATH, help="Latency against quality, as .png, .svg or .pdf.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout; words go to stderr.")
def bench(
    bundle: Path | None,
    preset: str | None,
    engines: tuple[str, ...],
    precisions: tuple[str, ...],
    source: Path | None,
    repeats: int,
    picture: Path | None,
    as_json: bool,
) -> None:
    """Measure how fast BUNDLE, or a model of a preset's size, runs here: each engine in each precision and mode.

    Every one has a process of its own, and they take turns. Compared with PyTorch as it is (run with untrained weights,
    which cost the same), with fp32, and with the least time that this machine could take, measured in the same run.
    """
    if (bundle is None) == (preset is None):
        raise UsageError("give either BUNDLE, a folder that `jokr export` wrote, or --preset full or realtime")
    if picture is not None:
        try:
            from jokr_rt.bench.plot import check_plot, plot
        except ImportError as error:
            raise missing_extra("--plot", error, "evaluate") from error
        check_plot(picture)
    from jokr_rt.bench.benchmark import benchmark
    from jokr_rt.bench.processes import Processes
    from jokr_rt.bench.variants import choose_variants
    from jokr_rt.console import benchmark_tables, build_progress, print_tables
    from jokr_rt.video import open_video

    choose_variants(engines, precisions)
    if source is not None:
        open_video(source).close()
    with build_progress() as monitor, Processes() as processes:
        subject = _subject(bundle, preset, processes, monitor)
        found = benchmark(
            subject, processes, monitor, engines=engines, precisions=precisions, source=source, repeats=repeats
        )
    if picture is not None:
        plot(found, picture)
    if as_json:
        click.echo(json.dumps(found, allow_nan=False))
    else:
        print_tables(*benchmark_tables(found))


def _subject(bundle: Path | None, preset: str | None, processes: "Processes", monitor: "Monitor") -> "Subject":
    from jokr_rt.bench.presets import preset_subject
    from jokr_rt.bench.results import Subject
    from jokr_rt.bundle import open_bundle

    if bundle is not None:
        return Subject(str(bundle), open_bundle(bundle))
    return preset_subject(str(preset), processes, monitor)
