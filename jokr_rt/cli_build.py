"""The command line of `jokr build`. What builds is imported when it is called, not before."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from jokr_rt.errors import UsageError

if TYPE_CHECKING:
    from jokr_rt.bundle import Bundle
    from jokr_rt.engines.tensorrt_cache import BuildOptions

ENGINE = "tensorrt"


@click.command()
@click.argument("bundle", metavar="BUNDLE", type=click.Path(path_type=Path))
@click.option("--engine", default=ENGINE, show_default=True, help="The one that has something to build.")
@click.option("--precision", help="fp16 or fp32.  [default: fp16 where the bundle has it]")
@click.option("--sampler", default="auto", show_default=True, help="plugin, TensorRT's own (native), or auto.")
@click.option("--max-batch", type=int, default=8, show_default=True, help="Frames at once; tuned for one.")
@click.option("--workspace", type=int, default=1024, show_default=True, metavar="MIB", help="Memory for a layer.")
@click.option("--optimization-level", type=int, default=3, show_default=True, help="0 to 5: built fast to runs fast.")
@click.option("--inspect", is_flag=True, help="Print the layers of each engine.")
@click.option("--dry-run", is_flag=True, help="Print what would be built and its key. Works without a GPU.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout; words go to stderr.")
def build(
    bundle: Path, engine: str, precision: str | None, inspect: bool, dry_run: bool, as_json: bool, **options: Any
) -> None:
    """Build the engines of BUNDLE for the GPU of this machine, and keep them in its folder "engines".

    `jokr run --engine tensorrt` does this when they are missing, and takes those built here as they are. One is built
    again where anything has changed that it depends on.
    """
    from jokr_rt.bundle import open_bundle
    from jokr_rt.engines import choose_precision
    from jokr_rt.engines.tensorrt_cache import BuildOptions

    if engine != ENGINE:
        raise UsageError(f"engine {engine!r} has nothing to build; leave --engine out, or take {ENGINE}")
    if inspect and dry_run:
        raise UsageError("--inspect shows what was built, and --dry-run builds nothing; leave one of them out")
    opened, chosen = open_bundle(bundle), BuildOptions(**options)
    precision = choose_precision(engine, opened, precision)
    about = {"bundle": str(bundle), "engine": engine, "precision": precision, "options": asdict(chosen)}
    report = _foresee(opened, precision, chosen) if dry_run else _build(opened, precision, chosen, inspect)
    if as_json:
        click.echo(json.dumps(about | report))
    else:
        from jokr_rt.console import plan_tables, print_tables

        print_tables(*plan_tables(about | report))


def _foresee(bundle: "Bundle", precision: str, options: "BuildOptions") -> dict[str, Any]:
    from jokr_rt.engines.tensorrt_cache import digest, wanted_plans
    from jokr_rt.engines.tensorrt_machine import known_machine_key

    machine, unknown = known_machine_key()
    for words in unknown:
        click.echo(f"not known here: {words}", err=True)
    plans = [
        {"graph": plan.graph, "file": str(plan.path), "would_build": bool(plan.reason), "reason": plan.reason}
        | {"key": plan.key, "digest": digest(plan.key)}
        for plan in wanted_plans(bundle, precision, options, machine)
    ]
    return {"unknown": list(unknown), "plans": plans}


def _build(bundle: "Bundle", precision: str, options: "BuildOptions", inspect: bool) -> dict[str, Any]:
    from jokr_rt.console import build_progress
    from jokr_rt.engines import engine_module

    with build_progress() as monitor:
        return {"plans": engine_module(ENGINE).build_plans(bundle, precision, options, monitor, inspect)}
