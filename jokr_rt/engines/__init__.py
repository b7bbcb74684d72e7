"""Inference engines behind one small protocol. Importing this imports none of them."""

import importlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from types import ModuleType
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from jokr_rt.bundle import HINTS, Arrays, Bundle
from jokr_rt.engines.onnxruntime_tensorrt import explanation
from jokr_rt.errors import EngineError, EngineMissingError, UsageError


@dataclass(frozen=True)
class Kind:
    """package: what it imports. extra: of this project, which installs that. precisions: the preferred one first."""

    package: str
    extra: str
    precisions: tuple[str, ...]
    builds: bool = False
    """Whether it compiles the graphs for the machine it finds, and tells a `Monitor` of it."""
    asks_cpu: bool = False
    """Whether some processors lack one of the precisions; its module's function `lacks` then says so."""
    refuses: Mapping[str, str] = field(default_factory=dict)
    """Why it has not a precision that one might look for."""


_NO_INT8 = (
    "its kernels are fast only where the convolutions' outputs are quantised too, which costs too much quality "
    "(32 dB); use openvino, or fp32"
)

KINDS = {
    "openvino": Kind("openvino", "cpu", ("int8", "bf16", "fp32"), builds=True, asks_cpu=True),
    "onnxruntime": Kind("onnxruntime", "cpu", ("fp32", "fp16"), refuses={"int8": _NO_INT8}),
    "tensorrt": Kind("tensorrt", "tensorrt", ("fp16", "fp32"), builds=True),
    "onnxruntime-cuda": Kind("onnxruntime", "gpu", ("fp16", "fp32")),
}
"""Engines that run a bundle; each is a module of this package."""

ENGINES = ("openvino", "onnxruntime")
"""Those that need no GPU, the one that "auto" prefers first."""

MODES = ("latency", "throughput")
"""latency: one frame at a time, with all cores on it. throughput: several at once, in order: more of them a second."""


class Engine(Protocol):
    """Runs a model's graphs (see `jokr_rt.bundle.signatures`). Not shared between threads, unless a graph differs."""

    @property
    def name(self) -> str:
        """What `--engine` calls it."""
        ...

    @property
    def precision(self) -> str:
        """What it computes in, such as "fp32" or "int8"; where some layers are left in another one, most of it."""
        ...

    def run(self, graph: str, inputs: Arrays) -> Arrays:
        """Outputs by name of one graph for inputs by name, any batch size. The outputs are the caller's to keep.

        Raises EngineError.
        """
        ...


class Stages(Protocol):
    """The graphs of one direction, as the two calls that a frame on the processor takes.

    workers: how many threads may call at a time.
    """

    workers: int

    def extract(self, frame: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Keypoints (1, K, 2) and confidence (1, K) in a frame (1, size, size, 3), which is only read.

        The results are the caller's to keep. Raises EngineError.
        """
        ...

    def draw(self, keypoints: NDArray[np.float32]) -> NDArray[np.uint8]:
        """The target's image (1, size, size, 3) in the pose of keypoints (1, K, 2). As `extract` otherwise."""
        ...


@runtime_checkable
class StagedEngine(Engine, Protocol):
    """An engine that has a faster way through a direction's graphs than `run`, one by one."""

    def stages(self, direction: str, appearance: NDArray[np.float32], mode: str) -> Stages:
        """For "a2b" or "b2a", the target's appearance (1, 3, size/2, size/2) and one of `MODES`.

        Compiles them, so that what cannot run is said here. Raises BundleError, EngineError.
        """
        ...


class FrameQueue(Protocol):
    """Whole frames of one direction: first in, first out. Made by `jokr_rt.engines.stages.StageFrames`, or by a
    `DeviceEngine`.

    depth: how many it holds: while one is computed, another one is, too, or is copied.
    """

    depth: int

    def enqueue(self, frame: NDArray[np.uint8]) -> None:
        """Start on frames (N, size, size, 3) uint8, which must not change before they are collected.

        N is 1 to the engine's largest batch; on a device a change of it costs a new capture. Raises EngineError, also
        where `depth` of them wait to be collected.
        """
        ...

    def collect(self) -> Arrays:
        """Wait for the oldest and return "image", "keypoints" and "confidence", the caller's to keep (see
        `jokr_rt.bundle.signatures`). Raises EngineError, also where nothing was enqueued."""
        ...

    def close(self) -> None:
        """Free what it holds; what was not collected is lost. May be called twice."""
        ...


IN_FLIGHT = 2
"""`FrameQueue.depth` on a device: while one frame is computed, the next is copied in, or the last one out."""


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
    """Load a bundle into the engine called `name`; "auto" takes the first installed of `ENGINES`.

    precision: of the graphs; None leaves it to the engine, which takes the fastest that the bundle has and this machine
    runs. monitor: told of what takes long, and what a user should know. The result's `name` and `precision` say which
    they are. Raises UsageError for an unknown name, and a precision that the engine, the bundle or this machine has
    not; EngineMissingError for an engine that is not installed, BundleError where a graph is not what the manifest
    says, EngineError where it cannot be loaded. (On the processor a graph is loaded when it is first used.)
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
    choose_precision(name, bundle, precision)  # what cannot be meant is said before a library is loaded
    module = engine_module(name)
    precision = choose_precision(name, bundle, precision, module.lacks if KINDS[name].asks_cpu else _nothing)
    more = (monitor or Monitor(),) if KINDS[name].builds else ()
    engine: Engine = module.load(bundle, precision, *more)
    return engine


def engine_module(name: str) -> ModuleType:
    """The module of one of `KINDS`. Raises EngineMissingError where it is not installed, EngineError if broken."""
    if not _is_installed(KINDS[name].package):
        raise EngineMissingError(f"engine {name} is not installed: {_how_to_get(name)}")
    try:
        return importlib.import_module(f"jokr_rt.engines.{name.replace('-', '_')}")
    except ImportError as error:
        raise EngineError(f"engine {name} is installed, but cannot be imported: {error}; install it again") from error


def _nothing(precision: str) -> str:
    return ""


def choose_precision(name: str, bundle: Bundle, wanted: str | None, lacks: Callable[[str], str] = _nothing) -> str:
    """`wanted`, or the precision that the engine called `name` prefers of those the bundle has and the machine runs.

    lacks: why this machine does not run a precision, "" where it does. Raises UsageError.
    """
    runs = KINDS[name].precisions
    if wanted is None:  # fp32 is always there
        return next(precision for precision in runs if precision in bundle.precisions and not lacks(precision))
    if wanted in KINDS[name].refuses:
        raise UsageError(f"engine {name} has no {wanted}: {KINDS[name].refuses[wanted]}")
    if wanted not in runs:
        listed = " and ".join([", ".join(runs[:-1]), runs[-1]])
        raise UsageError(f"engine {name} runs {listed}, not {wanted!r}; choose another --precision")
    if HINTS.get(wanted, wanted) not in bundle.precisions:
        has = ", ".join(bundle.precisions)
        raise UsageError(f"{bundle.root}: has {has}, not {wanted}; `jokr export --precision {wanted}` adds it")
    if reason := lacks(wanted):
        raise UsageError(f"engine {name} cannot run {wanted}: {reason}; choose another --precision")
    return wanted


def _how_to_get(name: str) -> str:
    return f"pip install 'jokr-rt[{KINDS[name].extra}]'"
