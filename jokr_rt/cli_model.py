"""The model that a command runs, as its user names it. Engines are imported when one is loaded, not before."""

from pathlib import Path
from typing import TYPE_CHECKING

from jokr_rt.cli_train import missing_extra
from jokr_rt.errors import UsageError

if TYPE_CHECKING:
    from jokr_rt.engines import Engine
    from jokr_rt.retarget import Model


def load_model(path: Path, engine: str) -> "tuple[Model, Engine]":
    """For a bundle, which is a folder, or a checkpoint, which is a file and needs PyTorch."""
    if not path.is_file():
        from jokr_rt.bundle import open_bundle
        from jokr_rt.engines import load_engine

        bundle = open_bundle(path)
        return bundle, load_engine(engine, bundle)
    if engine != "torch":
        raise UsageError(f"{path}: a file, and a bundle is a folder; `jokr export` it, or run it with --engine torch")
    try:
        from jokr_rt.training.checkpoint import load_checkpoint
        from jokr_rt.training.engine import TorchEngine
    except ImportError as error:
        raise missing_extra("--engine torch", error) from error
    reference = TorchEngine(load_checkpoint(path))
    return reference, reference
