"""The model that a command runs, as its user names it. Engines are imported when one is loaded, not before."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from jokr_rt.errors import UsageError, missing_extra

if TYPE_CHECKING:
    from jokr_rt.engines import Engine
    from jokr_rt.retarget import Model


def load_model(path: Path, engine: str, precision: str | None) -> "tuple[Model, Engine]":
    """For a bundle, which is a folder, or a checkpoint, which is a file and needs PyTorch.

    precision: None leaves it to the engine. The end of the command frees what the engine holds on a device.
    """
    from jokr_rt.engines import DeviceEngine

    load = _load_checkpoint if path.is_file() else _load_bundle
    model, loaded = load(path, engine, precision)
    if isinstance(loaded, DeviceEngine):
        click.get_current_context().call_on_close(loaded.close)
    return model, loaded


def _load_bundle(path: Path, engine: str, precision: str | None) -> "tuple[Model, Engine]":
    from jokr_rt.bundle import open_bundle
    from jokr_rt.console import build_progress
    from jokr_rt.engines import load_engine

    bundle = open_bundle(path)
    with build_progress() as monitor:
        return bundle, load_engine(engine, bundle, precision, monitor)


def _load_checkpoint(path: Path, engine: str, precision: str | None) -> "tuple[Model, Engine]":
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
