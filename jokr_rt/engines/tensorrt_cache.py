"""The TensorRT plans of a bundle, in its folder `engines`, and what has to be the same for one to be used again.

    engines/manifest.json         of each plan its SHA-256, its key, and what it was built with
    engines/extractor-fp16.plan   one of these for each graph and precision
    engines/timing.cache          what the builder measured, which makes the next build faster

Files are replaced whole, and read only where their hash is the manifest's. The hash tells damage, not intent: a plan is
machine code, so take one only from whom you would take a program, and delete `engines` otherwise.
"""

import hashlib
import json
import os
import tempfile
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jokr_rt.bundle import Bundle
from jokr_rt.errors import BundleError, OutputError, UsageError

FOLDER = "engines"
MANIFEST = "manifest.json"
TIMING_CACHE = "timing.cache"
FORMAT_VERSION = 1
SAMPLERS = ("auto", "plugin", "native")
SAMPLER_OPERATOR = b"AffineGridSample"
FLAGS = "strongly typed, no TF32, no auxiliary streams, detailed profiling"

Key = dict[str, str | None]
"""What a plan depends on, in words; None is not known here."""


@dataclass(frozen=True)
class BuildOptions:
    """What a user can choose.

    sampler: who computes AffineGridSample: "plugin" (the fused kernel), "native" (TensorRT's GridSample on a grid) or
    "auto" (the plugin where it can be had). max_batch: frames at once; a plan takes 1 to this many, and is tuned for 1.
    workspace: MiB of device memory that a layer may use. optimization_level: 0 to 5, from a fast build to a fast plan.
    Raises UsageError.
    """

    sampler: str = "auto"
    max_batch: int = 8
    workspace: int = 1024
    optimization_level: int = 3

    def __post_init__(self) -> None:
        if self.sampler not in SAMPLERS:
            raise UsageError(f"unknown sampler {self.sampler!r}; choose {', '.join(SAMPLERS)}")
        for name, low, high in (("max_batch", 1, 65535), ("workspace", 1, 1 << 20), ("optimization_level", 0, 5)):
            value = getattr(self, name)
            if type(value) is not int or not low <= value <= high:
                raise UsageError(f"{name.replace('_', ' ')} must be a whole number from {low} to {high}, not {value}")


@dataclass(frozen=True)
class Plan:
    """content: as TensorRT serialised it. sampler: the one it really has: "plugin", "native", or "none"."""

    content: bytes
    sampler: str


class NoPlanError(LookupError):
    """There is no plan that may be used; the message is why, such as "GPU was NVIDIA A10, is NVIDIA L4"."""


def plan_key(model: bytes, precision: str, options: BuildOptions, machine: Key) -> Key:
    """Of the plan of an ONNX graph. machine: see `jokr_rt.engines.tensorrt_machine`."""
    key: Key = {
        "graph": _sha256(model),
        "precision": precision,
        "profile": f"batch 1 to {options.max_batch}, tuned for 1",
        "workspace": f"{options.workspace} MiB",
        "optimization level": str(options.optimization_level),
        "flags": FLAGS,
        "sampler": options.sampler,
        **machine,
    }
    if SAMPLER_OPERATOR not in model:
        key |= {"sampler": "none", "kernel": "none"}
    return key


def digest(key: Key) -> str | None:
    """SHA-256 of a key, in hex; None where a part of it is not known."""
    if None in key.values():
        return None
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Wanted:
    """A plan that a run asks for. path: where it is kept. reason: why it has to be built, "" where it is there."""

    graph: str
    path: Path
    key: Key
    reason: str


def wanted_plans(bundle: Bundle, precision: str, options: BuildOptions, machine: Key) -> list[Wanted]:
    """Of every graph, in the order a frame passes them, as far as `machine` is known."""
    cache, wanted = PlanCache(bundle.root), []
    for graph in bundle.signatures:
        key, reason = plan_key(read_model(bundle, graph, precision), precision, options, machine), ""
        try:
            cache.find(graph, precision, key)
        except NoPlanError as error:
            reason = str(error)
        wanted.append(Wanted(graph, cache.path(graph, precision), key, reason))
    return wanted


def read_model(bundle: Bundle, graph: str, precision: str) -> bytes:
    """An ONNX graph as the manifest has it. Raises BundleError."""
    path = bundle.graph_path(graph, precision)
    try:
        model = path.read_bytes()
    except OSError as error:
        raise BundleError(f"{path}: cannot be read: {error.strerror}; copy the bundle again") from None
    if _sha256(model) != bundle.graph(graph, precision).sha256:
        raise BundleError(f"{path}: changed since the bundle was opened; run it again")
    return model


class PlanCache:
    """The folder `engines` of a bundle."""

    def __init__(self, bundle_root: Path) -> None:
        self.folder = bundle_root / FOLDER
        self._damage = ""
        self._read()

    def path(self, graph: str, precision: str) -> Path:
        """Where that plan is kept."""
        return self.folder / f"{graph}-{precision}.plan"

    def options(self, precision: str) -> BuildOptions:
        """Those of the last build in this precision; the defaults where there was none."""
        with suppress(KeyError, TypeError, UsageError):
            return BuildOptions(**self._values["options"][precision])
        return BuildOptions()

    def find(self, graph: str, precision: str, key: Key) -> Plan:
        """The plan that was built with this key, a part that is None aside. Raises NoPlanError."""
        path = self.path(graph, precision)
        try:
            entry = self._values["plans"][path.name]
            built, sha256, sampler = dict(entry["key"]), str(entry["sha256"]), str(entry["sampler"])
        except (KeyError, TypeError, ValueError):
            raise NoPlanError(self._damage or "not built yet") from None
        known = {part: value for part, value in key.items() if value is not None}
        changed = [
            f"{part} was {_shortened(built.get(part))}, is {_shortened(value)}"
            for part, value in known.items()
            if built.get(part) != value
        ]
        if changed:
            raise NoPlanError(", ".join(changed))
        return Plan(_checked(path, sha256), sampler)

    def store(self, graph: str, precision: str, key: Key, plan: Plan, options: BuildOptions) -> None:
        """Keep a plan and the options of its build. Raises OutputError."""
        path = self.path(graph, precision)
        entry = {"sha256": _sha256(plan.content), "sampler": plan.sampler, "key": key}
        self._write(path, plan.content)
        self._update("options", precision, asdict(options))
        self._update("plans", path.name, entry)

    def timing_cache(self, machine: Key) -> bytes:
        """What was measured on this machine with this kernel; empty where nothing was, or it cannot be used."""
        try:
            entry = self._values["timing_cache"][TIMING_CACHE]
            if entry["machine"] != machine:
                return b""
            return _checked(self.folder / TIMING_CACHE, str(entry["sha256"]))
        except (KeyError, TypeError, NoPlanError):
            return b""

    def store_timing_cache(self, content: bytes, machine: Key) -> None:
        """Keep it for the next build. Raises OutputError."""
        self._write(self.folder / TIMING_CACHE, content)
        self._update("timing_cache", TIMING_CACHE, {"sha256": _sha256(content), "machine": machine})

    def require_writable(self) -> None:
        """Raises OutputError now, and not after minutes of building."""
        try:
            self.folder.mkdir(exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder):
                pass
        except OSError as error:
            raise self._not_writable(error) from None

    def _read(self) -> None:
        """The manifest as it is now, for another process may have built meanwhile."""
        self._values: dict[str, Any] = {}
        path = self.folder / MANIFEST
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            version = values["format_version"]
        except (FileNotFoundError, NotADirectoryError):
            return
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            self._damage = f"{path} cannot be read ({type(error).__name__})"
            return
        if version != FORMAT_VERSION:
            self._damage = f"{path} is of format version {version}, and this program's is {FORMAT_VERSION}"
            return
        self._values = values

    def _update(self, section: str, name: str, entry: dict[str, Any]) -> None:
        self._read()
        known = self._values.get(section)
        self._values[section] = (known if isinstance(known, dict) else {}) | {name: entry}
        self._values["format_version"] = FORMAT_VERSION
        self._write(self.folder / MANIFEST, json.dumps(self._values, indent=1).encode())

    def _write(self, path: Path, content: bytes) -> None:
        """Under its name the file is whole, whatever happens meanwhile."""
        unfinished = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            self.folder.mkdir(exist_ok=True)
            try:
                unfinished.write_bytes(content)
                unfinished.replace(path)
            finally:
                unfinished.unlink(missing_ok=True)
        except OSError as error:
            raise self._not_writable(error) from None

    def _not_writable(self, error: OSError) -> OutputError:
        reason = error.strerror or str(error)
        return OutputError(
            f"{self.folder}: engines cannot be kept there ({reason}); make it writable, or copy the bundle to where "
            "you may write"
        )


def _checked(path: Path, sha256: str) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise NoPlanError(f"{path.name} cannot be read ({error.strerror})") from None
    if _sha256(content) != sha256:
        raise NoPlanError(f"the SHA-256 of {path.name} is not the manifest's")
    return content


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _shortened(value: str | None) -> str:
    """Twelve digits tell two hashes apart."""
    is_hash = value is not None and len(value) == 64 and set(value) <= set("0123456789abcdef")
    return str(value)[:12] if is_hash else value or "unknown"
