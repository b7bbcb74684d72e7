"""The command line: it parses, calls and prints. What a command does is a function of the library.

Imports that cost time are inside the commands, so that `jokr --help` answers at once.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from jokr_rt import __version__
from jokr_rt.cli_bench import bench
from jokr_rt.cli_build import build
from jokr_rt.cli_evaluate import evaluate
from jokr_rt.cli_keypoints import keypoints, render
from jokr_rt.cli_live import live
from jokr_rt.cli_model import check_order, load_retargeter, print_report
from jokr_rt.cli_options import (
    DIRECTION,
    ENGINES,
    appearance_option,
    argument_input,
    argument_path,
    edits_option,
    engine_options,
    json_option,
    masks_option,
    option_path,
    overwrite_option,
    say,
    video_options,
    video_output_option,
)
from jokr_rt.cli_pipes import standard_input, standard_output
from jokr_rt.cli_studio import studio
from jokr_rt.cli_train import train
from jokr_rt.errors import JokrError, QuantisationError, missing_extra
from jokr_rt.ours import require_ours

INTERRUPTED = 130


class _Group(click.Group):
    """Maps what the library raises to one line on stderr and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except JokrError as error:
            say(f"jokr: error: {error}")
            ctx.exit(error.exit_code)
        except BrokenPipeError:  # `jokr info | head`, which click knows to end quietly
            raise
        except OSError as error:
            say(f"jokr: error: {error}")
            ctx.exit(JokrError.exit_code)
        except KeyboardInterrupt as interrupt:
            say("; ".join(["jokr: interrupted", *map(str, interrupt.args)]))
            ctx.exit(INTERRUPTED)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="jokr")
def main() -> None:
    """Make one creature move like another."""


main.add_command(bench)
main.add_command(build)
main.add_command(train)
main.add_command(evaluate)
main.add_command(keypoints)
main.add_command(render)
main.add_command(studio)
main.add_command(live)


@main.command()
@argument_path("model", "BUNDLE")
@argument_input("source", "INPUT")
@video_output_option
@click.option("--direction", default="a2b", show_default=True, help=DIRECTION)
@masks_option
@click.option(
    "--smooth",
    type=float,
    metavar="HZ",
    help="Smooth the keypoints: cutoff where they rest. 3 calms jitter; lower lags more.",
)
@edits_option
@appearance_option
@engine_options
@click.option("--layout", default="output", show_default=True, help="output, or side-by-side (+ input, keypoints).")
@video_options
@click.option("--no-audio", is_flag=True, help="Leave the input's sound out.")
@overwrite_option
@json_option
def run(
    model: Path,
    source: Path | str,
    output: Path | str,
    direction: str,
    engine: str,
    precision: str | None,
    mode: str,
    edits: Path | None,
    appearance: Path | None,
    no_audio: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Retarget INPUT, a video, a folder of frames or an image sequence such as frames/%05d.png; or - for stdin.

    BUNDLE is what `jokr export` wrote; a checkpoint runs too, with --engine torch or torch-cuda. Edits need the whole
    motion: with --edits, INPUT is read first, and drawn then; sound is left out where they scale time.
    """
    from jokr_rt.console import frame_progress
    from jokr_rt.edits import read_edits
    from jokr_rt.stream import retarget_stream

    check_order(model, Path(source))
    written = standard_output(output, as_json)
    document = None if edits is None else read_edits(edits)
    retargeter, runs = load_retargeter(model, direction, engine, precision, mode, appearance=appearance)
    with standard_input(source) as clip, frame_progress() as progress:
        report = retarget_stream(
            retargeter, clip, written, edits=document, audio=not no_audio, progress=progress, **options
        )
    print_report(output, runs, report, as_json)


@main.command()
@argument_path("bundle", "BUNDLE")
@json_option
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
@argument_path("bundle", "BUNDLE")
@click.option("--engine", help=f"{ENGINES}.  [default: every one that is installed and needs no GPU]")
@json_option
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
            say(f"{precision}: not compared, for {' and '.join(engines)} cannot run it")
    if as_json:
        passed, rows = all(figure.passed for figure in figures), [asdict(figure) for figure in figures]
        click.echo(json.dumps({"bundle": str(bundle), "passed": passed, "parity": rows}))
    else:
        from jokr_rt.console import parity_table, print_tables

        print_tables(parity_table(figures, opened.signatures))
    require_parity(figures)


@main.command()
@argument_path("model", "CHECKPOINT|BUNDLE")
@option_path("-o", "--output", required=True, text="Bundle folder to write.")
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
@overwrite_option
@json_option
def export(model: Path, output: Path, as_json: bool, **options: Any) -> None:
    """Turn a checkpoint of `jokr train` into a bundle, or add precisions to a bundle; and compare it with PyTorch.

    bf16 is for processors that have it, and int8 for all: 8-bit layers on a processor, as many as still draw what fp32
    draws. fp16 is for GPUs: half the size, and fast where they have tensor cores; it needs a checkpoint.
    """
    try:
        require_ours("export")
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
        say(f"not in int8: {', '.join(bundle.quantisation.float_layers)}")
