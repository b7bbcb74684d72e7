"""Inference engines behind one small protocol. Importing this imports none of them."""

import importlib
from importlib.util import find_spec
from typing import Protocol

from jokr_rt.bundle import Arrays, Bundle
from jokr_rt.errors import EngineError, EngineMissingError, UsageError

ENGINES = ("openvino", "onnxruntime")
"""Engines that run a bundle, the one that "auto" prefers first."""

EXTRA = "pip install 'jokr-rt[cpu]'"


class Engine(Protocol):
    """Runs a model's graphs (see `jokr_rt.bundle.signatures`). Not shared between threads, unless a graph differs."""

    @property
    def name(self) -> str:
        """What `--engine` calls it."""
        ...

    def run(self, graph: str, inputs: Arrays) -> Arrays:
        """Outputs by name of one graph for inputs by name, any batch size. The outputs are the caller's to keep.

        Raises EngineError.
        """
        ...


def installed_engines() -> tuple[str, ...]:
    """Those of `ENGINES` whose package is there, in the same order. Imports none of them."""
    return tuple(name for name in ENGINES if _is_installed(name))


def _is_installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ImportError:  # an import hook that forbids it
        return False


def load_engine(name: str, bundle: Bundle) -> Engine:
    """Load every graph of a bundle into the engine called `name`; "auto" takes the first installed of `ENGINES`.

    The result's `name` says which it is. Raises UsageError for an unknown name, EngineMissingError for one that is not
    installed, BundleError where a graph is not what the manifest says, EngineError where it cannot be loaded.
    """
    installed = installed_engines()
    if name == "auto":
        if not installed:
            raise EngineMissingError(f"no engine is installed ({' or '.join(ENGINES)}): {EXTRA}")
        name = installed[0]
    if name == "torch":
        raise UsageError(f"engine torch runs a checkpoint, not a bundle such as {bundle.root}; leave --engine out")
    if name not in ENGINES:
        raise UsageError(f"unknown engine {name!r}; choose auto, {', '.join(ENGINES)}, or torch for a checkpoint")
    if name not in installed:
        raise EngineMissingError(f"engine {name} is not installed: {EXTRA}")
    try:
        module = importlib.import_module(f"jokr_rt.engines.{name}")
    except ImportError as error:
        raise EngineError(f"engine {name} is installed, but cannot be imported: {error}; install it again") from error
    engine: Engine = module.load(bundle)
    return engine
