"""Inference engines behind one small protocol. Importing this imports none of them."""

import importlib
import logging
from dataclasses import dataclass
from importlib.util import find_spec
from types import ModuleType
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from jokr_rt.bundle import Arrays, Bundle
from jokr_rt.engines.onnxruntime_tensorrt import explanation
from jokr_rt.errors import EngineError, EngineMissingError, UsageError


@dataclass(frozen=True)
class Kind:
    """package: what it imports. extra: of this project, which installs that. precisions: the preferred one first."""

    package: str
    extra: str
    precisions: tuple[str, ...]
    builds: bool = False
    """Whether it compiles the graphs for the GPU it finds, and tells a `Monitor` of it."""


KINDS = {
    "openvino": Kind("openvino", "cpu", ("fp32",)),
    "onnxruntime": Kind("onnxruntime", "cpu", ("fp32", "fp16")),
    "tensorrt": Kind("tensorrt", "tensorrt", ("fp16", "fp32"), builds=True),
    "onnxruntime-cuda": Kind("onnxruntime", "gpu", ("fp16", "fp32")),
}
"""Engines that run a bundle; each is a module of this package."""

ENGINES = ("openvino", "onnxruntime")
"""Those that need no GPU, the one that "auto" prefers first."""


class Engine(Protocol):
    """Runs a model's graphs (see `jokr_rt.bundle.signatures`). Not shared between threads, unless a graph differs."""

    @property
    def name(self) -> str:
        """What `--engine` calls it."""
        ...

    @property
    def precision(self) -> str:
        """What it computes in: "fp32" or "fp16"."""
        ...

    def run(self, graph: str, inputs: Arrays) -> Arrays:
        """Outputs by name of one graph for inputs by name, any batch size. The outputs are the caller's to keep.

        Raises EngineError.
        """
        ...


IN_FLIGHT = 2
"""Frames that a `FrameQueue` holds: while one is computed, the next is copied in, or the last one out."""


class FrameQueue(Protocol):
    """Whole frames of one direction, on a device from end to end: first in, first out. See `DeviceEngine.frames`."""

    def enqueue(self, frame: NDArray[np.uint8]) -> None:
        """Start on frames (N, size, size, 3) uint8, which are the caller's again when this returns.

        N is 1 to the engine's largest batch; a change of it costs a new capture. Raises EngineError, also where
        `IN_FLIGHT` of them wait to be collected.
        """
        ...

    def collect(self) -> Arrays:
        """Wait for the oldest and return "image", "keypoints" and "confidence", the caller's to keep (see
        `jokr_rt.bundle.signatures`). Raises EngineError, also where nothing was enqueued."""
        ...

    def close(self) -> None:
        """Free what it holds on the device; what was not collected is lost. May be called twice."""
        ...


@runtime_checkable
class DeviceEngine(Engine, Protocol):
    """An engine that holds a device's memory until it is closed, and can keep whole frames there."""

    def frames(self, direction: str, appearance: NDArray[np.float32]) -> FrameQueue:
        """A queue for "a2b" or "b2a" and the target's appearance (1, 3, size/2, size/2). Raises EngineError.

        Its frames are computed one after the other with those of the engine's other queues and of `run`.
        """
        ...

    def close(self) -> None:
        """Free all device memory; afterwards every call raises EngineError. May be called twice."""
        ...


class Monitor:
    """Told what takes an engine long to load, and what its user should know of it. This one logs the words."""

    def say(self, words: str) -> None:
        """One line."""
        logging.getLogger("jokr_rt").warning(words)

    def step(self, task: str, done: int, total: int) -> None:
        """`done` of `total` steps of a task, such as "building extractor"; called often, at last with both equal."""


def installed_engines() -> tuple[str, ...]:
    """Those of `ENGINES` whose package is there, in the same order. Imports none of them."""
    return tuple(name for name in ENGINES if _is_installed(KINDS[name].package))


def _is_installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ImportError:  # an import hook that forbids it
        return False


def load_engine(name: str, bundle: Bundle, precision: str | None = None, monitor: Monitor | None = None) -> Engine:
    """Load every graph of a bundle into the engine called `name`; "auto" takes the first installed of `ENGINES`.

    precision: of the graphs; None leaves it to the engine, which takes the fastest that the bundle has. monitor: told
    of engines that build. The result's `name` and `precision` say which they are. Raises UsageError for an unknown
    name, and a precision that the engine or the bundle has not; EngineMissingError for an engine that is not installed,
    BundleError where a graph is not what the manifest says, EngineError where it cannot be loaded.
    """
    if name == "auto":
        installed = installed_engines()
        if not installed:
            raise EngineMissingError(f"no engine is installed ({' or '.join(ENGINES)}): {_how_to_get(ENGINES[0])}")
        name = installed[0]
    if name in ("torch", "torch-cuda"):
        raise UsageError(f"engine {name} runs a checkpoint, not a bundle such as {bundle.root}; leave --engine out")
    if name == "onnxruntime-tensorrt":
        raise UsageError(f"engine {name}: {explanation()}")
    if name not in KINDS:
        raise UsageError(f"unknown engine {name!r}; choose auto, {', '.join(KINDS)}, or torch for a checkpoint")
    precision = choose_precision(name, bundle, precision)
    more = (monitor or Monitor(),) if KINDS[name].builds else ()
    engine: Engine = engine_module(name).load(bundle, precision, *more)
    return engine


def engine_module(name: str) -> ModuleType:
    """The module of one of `KINDS`. Raises EngineMissingError where it is not installed, EngineError if broken."""
    if not _is_installed(KINDS[name].package):
        raise EngineMissingError(f"engine {name} is not installed: {_how_to_get(name)}")
    try:
        return importlib.import_module(f"jokr_rt.engines.{name.replace('-', '_')}")
    except ImportError as error:
        raise EngineError(f"engine {name} is installed, but cannot be imported: {error}; install it again") from error


def choose_precision(name: str, bundle: Bundle, wanted: str | None) -> str:
    """`wanted`, or the precision that the engine called `name` prefers of those the bundle has. Raises UsageError."""
    runs = KINDS[name].precisions
    if wanted is None:
        return next(precision for precision in runs if precision in bundle.precisions)  # fp32 is always there
    if wanted not in runs:
        raise UsageError(f"engine {name} runs {' and '.join(runs)}, not {wanted!r}; choose another --precision")
    if wanted not in bundle.precisions:
        has = ", ".join(bundle.precisions)
        raise UsageError(f"{bundle.root}: has {has}, not {wanted}; `jokr export --precision {wanted}` adds it")
    return wanted


def _how_to_get(name: str) -> str:
    return f"pip install 'jokr-rt[{KINDS[name].extra}]'"
