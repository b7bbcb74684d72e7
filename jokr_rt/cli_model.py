"""The model that a command runs, as its user names it, and what it says of it.

Engines are imported when one is loaded, not before.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from jokr_rt.cli_options import STANDARD, say
from jokr_rt.errors import UsageError, missing_extra

if TYPE_CHECKING:
    from jokr_rt.bundle import Bundle
    from jokr_rt.engines import Engine
    from jokr_rt.retarget import Model, Retargeter
    from jokr_rt.stream import Report
    from jokr_rt.training.engine import TorchEngine


def check_order(model: Path, *inputs: Path) -> None:
    """Raises UsageError where an input is a model, and what stands in the model's place is none."""
    for source in inputs:
        if _is_model(source) and not _is_model(model):
            raise UsageError(
                f"{model}, {source}: the wrong way round? {source} is a model, and {model} is none; swap them"
            )


def _is_model(path: Path) -> bool:
    from jokr_rt.bundle import is_bundle

    return is_bundle(path) or (path.suffix == ".safetensors" and path.is_file())


def load_model(path: Path, engine: str, precision: str | None) -> "tuple[Bundle | TorchEngine, Engine]":
    """For a bundle, which is a folder, or a checkpoint, which is a file and needs PyTorch.

    precision: None leaves it to the engine. The end of the command frees what the engine holds on a device.
    """
    from jokr_rt.engines import DeviceEngine

    model: Bundle | TorchEngine
    loaded: Engine
    load = _load_checkpoint if path.is_file() else _load_bundle
    model, loaded = load(path, engine, precision)
    if isinstance(loaded, DeviceEngine):
        click.get_current_context().call_on_close(loaded.close)
    return model, loaded


def load_retargeter(
    path: Path,
    direction: str | None,
    engine: str,
    precision: str | None,
    mode: str,
    *,
    domain: str | None = None,
    appearance: Path | None = None,
) -> "tuple[Retargeter, dict[str, str]]":
    """A retargeter of the model, and what it runs, which stderr is told too.

    direction: None for that of the motion of `domain`, a name or None for either. appearance: a picture that the
    target has its looks from.
    """
    from jokr_rt.retarget import Retargeter, direction_name, find_direction

    model: Model
    model, loaded = load_model(path, engine, precision)
    direction = find_direction(direction or _direction_of(domain, model.domains), model.domains)
    if appearance is not None:
        model = _with_looks(model, loaded, direction, appearance)
    retargeter = Retargeter(model, direction, loaded, mode)
    runs = {"direction": retargeter.direction, "engine": loaded.name, "precision": loaded.precision, "mode": mode}
    told = runs | {"direction": f"{direction} ({direction_name(direction, model.domains)})"}
    say(", ".join(f"{name} {value}" for name, value in told.items()))
    return retargeter, runs


def _with_looks(model: "Model", engine: "Engine", direction: str, path: Path) -> "Model":
    from jokr_rt.bundle import DIRECTIONS
    from jokr_rt.looks import with_looks
    from jokr_rt.video import read_picture

    return with_looks(model, engine, DIRECTIONS[direction][1], read_picture(path, model.config.size))


def _direction_of(domain: str | None, domains: dict[str, str]) -> str:
    from jokr_rt.bundle import DIRECTIONS
    from jokr_rt.retarget import known_directions

    fitting = [direction for direction, (source, _) in DIRECTIONS.items() if domain in (None, domains[source])]
    if not fitting or (domain is not None and len(fitting) > 1):
        known = known_directions(domains)
        raise UsageError(
            f"the motion is of {domain!r}, not of one of this model's creatures; choose a --direction, {known}"
        )
    return fitting[0]


def print_report(output: Path | str, runs: dict[str, str], report: "Report", as_json: bool) -> None:
    """What became of a video, on stdout, or on stderr where the video went to stdout. runs: as of `load_retargeter`."""
    if as_json:
        click.echo(json.dumps({"output": str(output)} | runs | asdict(report) | {"fps": report.fps}))
    else:
        pace = "" if report.fps is None else f", {report.fps:.1f} fps"
        took = f"{counted(report.frames)} in {report.seconds:.1f} s{pace}"
        click.echo(f"{output}: {took}, {words_of(runs)}{medians(report.stages, report.frames)}", err=output == STANDARD)


def counted(frames: int) -> str:
    return f"{frames} frame{'' if frames == 1 else 's'}"


def words_of(runs: dict[str, str]) -> str:
    """What a figure was measured with: such as "openvino in bf16, mode throughput"."""
    return f"{runs['engine']} in {runs['precision']}, mode {runs['mode']}"


def medians(stages: dict[str, dict[str, float]], frames: int) -> str:
    """Of each stage's milliseconds, in brackets; nothing of so few frames that a middle says nothing."""
    from jokr_rt.pipeline import DEPTH

    shown = ", ".join(f"{stage} {times['p50']:.1f}" for stage, times in stages.items())
    return f" (median ms: {shown})" if frames >= DEPTH else ""


def _load_bundle(path: Path, engine: str, precision: str | None) -> "tuple[Bundle, Engine]":
    from jokr_rt.bundle import open_bundle
    from jokr_rt.console import build_progress
    from jokr_rt.engines import load_engine

    bundle = open_bundle(path)
    with build_progress() as monitor:
        return bundle, load_engine(engine, bundle, precision, monitor)


def _load_checkpoint(path: Path, engine: str, precision: str | None) -> "tuple[TorchEngine, Engine]":
    if engine not in ("torch", "torch-cuda"):
        raise UsageError(
            f"{path}: a file, and a bundle is a folder; `jokr export` it, or run it with --engine torch or torch-cuda"
        )
    try:
        from jokr_rt.training.checkpoint import load_checkpoint
        from jokr_rt.training.engine import load_torch_engine
    except ImportError as error:
        raise missing_extra(f"--engine {engine}", error) from error
    reference = load_torch_engine(engine, load_checkpoint(path), precision)
    return reference, reference
