"""The command line: it parses, calls and prints. What a command does is a function of the library.

Imports that cost time are inside the commands, so that `jokr --help` answers at once.
"""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from jokr_rt import __version__
from jokr_rt.cli_bench import bench
from jokr_rt.cli_build import build
from jokr_rt.cli_evaluate import evaluate
from jokr_rt.cli_live import live
from jokr_rt.cli_model import load_model
from jokr_rt.cli_train import train
from jokr_rt.errors import JokrError, QuantisationError, missing_extra

INTERRUPTED = 130
_ENGINES = "openvino, onnxruntime, onnxruntime-cuda, tensorrt"


class _Group(click.Group):
    """Maps what the library raises to one line on stderr and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except JokrError as error:
            _say(f"jokr: error: {error}")
            ctx.exit(error.exit_code)
        except BrokenPipeError:  # `jokr info | head`, which click knows to end quietly
            raise
        except OSError as error:
            _say(f"jokr: error: {error}")
            ctx.exit(JokrError.exit_code)
        except KeyboardInterrupt as interrupt:
            _say("; ".join(["jokr: interrupted", *map(str, interrupt.args)]))
            ctx.exit(INTERRUPTED)


def _say(words: str) -> None:
    click.echo(" ".join(words.splitlines()), err=True)


def _path(name: str, metavar: str) -> Callable[[Any], Any]:
    return click.argument(name, metavar=metavar, type=click.Path(path_type=Path))


def _option_path(*names: str, required: bool = False, text: str) -> Callable[[Any], Any]:
    return click.option(*names, required=required, type=click.Path(path_type=Path), help=text)


_precision = click.option(
    "--precision", help="fp32, bf16, int8 or fp16, as bundle and engine have it.  [default: the fastest of them]"
)
_json = click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout; words go to stderr.")
_overwrite = click.option("--overwrite", is_flag=True, help="Replace the output where it exists.")


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="jokr")
def main() -> None:
    """Make one creature move like another."""


main.add_command(bench)
main.add_command(build)
main.add_command(train)
main.add_command(evaluate)
main.add_command(live)


@main.command()
@_path("model", "BUNDLE")
@_path("source", "INPUT")
@_option_path("-o", "--output", required=True, text="Video to write: .mp4, .mov, .mkv or .webm.")
@click.option("--direction", default="a2b", show_default=True, help="a2b: B moves like A; b2a: A like B.")
@_option_path("--masks", text="A mask for each frame, white on the object: a video or a folder.")
@click.option(
    "--smooth",
    type=float,
    metavar="HZ",
    help="Smooth the keypoints: cutoff where they rest. 3 calms jitter; lower lags more.",
)
@click.option("--engine", default="auto", show_default=True, help=f"auto, {_ENGINES}, torch or torch-cuda.")
@_precision
@click.option(
    "--mode",
    default="throughput",
    show_default=True,
    help="throughput: several frames at once, for files; latency: one, with all cores on it.",
)
@click.option("--layout", default="output", show_default=True, help="output, or side-by-side (+ input, keypoints).")
@click.option("--size", type=int, help="Side of the output in pixels.  [default: the model's]")
@click.option("--codec", help="Video codec, such as libx264, libx265 or libvpx-vp9.  [default: by the output's name]")
@click.option("--crf", type=click.IntRange(0, 63), default=18, show_default=True, help="Quality: lower is better.")
@click.option("--no-audio", is_flag=True, help="Leave the input's sound out.")
@_overwrite
@_json
def run(
    model: Path,
    source: Path,
    output: Path,
    direction: str,
    engine: str,
    precision: str | None,
    mode: str,
    no_audio: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Retarget INPUT, a video, a folder of frames or an image sequence such as frames/%05d.png.

    BUNDLE is what `jokr export` wrote; a checkpoint runs too, with --engine torch or torch-cuda.
    """
    from jokr_rt.console import frame_progress
    from jokr_rt.retarget import Retargeter
    from jokr_rt.stream import retarget_stream

    loaded, loaded_engine = load_model(model, engine, precision)
    retargeter = Retargeter(loaded, direction, loaded_engine, mode)
    runs = {"direction": retargeter.direction, "engine": loaded_engine.name, "precision": loaded_engine.precision}
    runs["mode"] = mode
    _say(", ".join(f"{name} {value}" for name, value in runs.items()))
    with frame_progress() as progress:
        report = retarget_stream(retargeter, source, output, audio=not no_audio, progress=progress, **options)
    if as_json:
        click.echo(json.dumps({"output": str(output)} | runs | asdict(report) | {"fps": report.fps}))
    else:
        stages = ", ".join(f"{stage} {times['p50']:.1f}" for stage, times in report.stages.items())
        pace = f"{report.frames} frames in {report.seconds:.1f} s, {report.fps:.1f} fps"
        click.echo(f"{output}: {pace} (median ms: {stages})")


@main.command()
@_path("bundle", "BUNDLE")
@_json
def info(bundle: Path, as_json: bool) -> None:
    """Print what a bundle holds."""
    from jokr_rt.bundle import open_bundle

    opened = open_bundle(bundle)
    if as_json:
        click.echo(json.dumps({"bundle": str(bundle), "precisions": opened.precisions} | opened.to_json()))
        return
    from jokr_rt.console import bundle_tables, parity_table, print_tables

    print_tables(*bundle_tables(opened), parity_table(opened.parity, opened.signatures))


@main.command()
@_path("bundle", "BUNDLE")
@click.option("--engine", help=f"{_ENGINES}.  [default: every one that is installed and needs no GPU]")
@_json
def verify(bundle: Path, engine: str | None, as_json: bool) -> None:
    """Compare a bundle's results with PyTorch's, on real frames stored with it. Exits with 1 if they differ.

    In every precision that the bundle has and an engine runs.
    """
    from jokr_rt.bundle import open_bundle
    from jokr_rt.engines import installed_engines
    from jokr_rt.parity import require_parity, verify_bundle

    opened = open_bundle(bundle)
    engines = [engine] if engine else installed_engines() or ["auto"]
    figures = [figure for name in engines for figure in verify_bundle(opened, name)]
    for precision in opened.precisions:
        if precision not in {figure.precision for figure in figures}:
            _say(f"{precision}: not compared, for {' and '.join(engines)} cannot run it")
    if as_json:
        passed, rows = all(figure.passed for figure in figures), [asdict(figure) for figure in figures]
        click.echo(json.dumps({"bundle": str(bundle), "passed": passed, "parity": rows}))
    else:
        from jokr_rt.console import parity_table, print_tables

        print_tables(parity_table(figures, opened.signatures))
    require_parity(figures)


@main.command()
@_path("model", "CHECKPOINT|BUNDLE")
@_option_path("-o", "--output", required=True, text="Bundle folder to write.")
@click.option(
    "--precision",
    "precisions",
    multiple=True,
    metavar="fp32|bf16|fp16|int8",
    help="Beside fp32, and what a BUNDLE has; may be repeated.",
)
@click.option(
    "--calibration",
    multiple=True,
    metavar="CLIP",
    type=click.Path(path_type=Path),
    help="For int8, twice: a clip of A and one of B, like those it is for.  [default: a checkpoint's reference frames]",
)
@click.option("--truth", metavar="puppets", help="Let int8 lose no more than 0.2 dB against their ground truth, too.")
@_overwrite
@_json
def export(model: Path, output: Path, as_json: bool, **options: Any) -> None:
    """Turn a checkpoint of `jokr train` into a bundle, or add precisions to a bundle; and compare it with PyTorch.

    bf16 is for processors that have it, and int8 for all: 8-bit layers on a processor, as many as still draw what fp32
    draws. fp16 is for GPUs: half the size, and fast where they have tensor cores; it needs a checkpoint.
    """
    try:
        from export import export_bundle
    except ImportError as error:
        raise missing_extra("jokr export", error) from error
    from jokr_rt.console import parity_table, print_tables, sensitivity_table, step_progress

    try:
        with step_progress() as progress:
            bundle = export_bundle(model, output, progress=progress, **options)
    except QuantisationError as error:
        print_tables(sensitivity_table(error.costs), stderr=True)
        raise
    if as_json:
        told = bundle.to_json()
        click.echo(json.dumps({"bundle": str(output)} | {name: told[name] for name in ("parity", "quantisation")}))
        return
    print_tables(parity_table(bundle.parity, bundle.signatures))
    if bundle.quantisation and bundle.quantisation.float_layers:
        _say(f"not in int8: {', '.join(bundle.quantisation.float_layers)}")
