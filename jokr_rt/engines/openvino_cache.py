"""Compiled models in the user's cache directory, so that the next start need not compile them.

A file is named by the hash of all that its content depends on, and begins with the hash of what follows. It is as
trusted as the directory: a compiled model is read by OpenVINO's own parser.
"""

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from threading import Lock
from typing import Any

import openvino as ov
from platformdirs import user_cache_path

from jokr_rt.engines import Monitor, openvino_graphs
from jokr_rt.engines.contract import failure
from jokr_rt.engines.openvino_graphs import NAME, Part, core

LARGEST = 2 << 30  # bytes of all files; the ones that were not used for longest go first
_DIGEST = hashlib.sha256().digest_size
PROGRAM = hashlib.sha256(b"".join(Path(file).read_bytes() for file in (__file__, openvino_graphs.__file__))).hexdigest()
"""The code that makes a part of its sources, and a file of it: what other code has kept may be another part's model."""
_BUILDING = Lock()
"""Reading a graph calls back into Python for the operator of ours: one at a time, whatever OpenVINO holds meanwhile."""


def compile_part(part: Part, options: dict[str, Any], monitor: Monitor) -> ov.CompiledModel:
    """From the cache, or compiled and, if it may, kept there. Raises what `part.build` raises, and RuntimeError."""
    path = cache_folder() / f"{part.name}-{_key(part, options)}.blob"
    if part.kept and path.exists():
        try:
            return _load(path, options)
        except (ValueError, RuntimeError, OSError) as error:
            monitor.say(f"{failure(NAME, f'{path} cannot be used', error)}; compiling {part.name} again")
    with _BUILDING:
        model = part.build()
    compiled = core().compile_model(model, "CPU", options)
    if not part.kept:
        return compiled
    try:
        _store(path, compiled.export_model())
    except OSError as error:
        reason = error.strerror or str(error)
        monitor.say(f"{NAME}: {path.parent}: compiled models cannot be kept there ({reason}); every start is slow")
    return compiled


def cache_folder() -> Path:
    """Where they are kept."""
    return user_cache_path("jokr-rt", appauthor=False) / "openvino"


def _key(part: Part, options: dict[str, Any]) -> str:
    capabilities = core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    values = {
        "program": PROGRAM,
        "part": part.name,
        "sources": part.sources,
        "options": {name: str(value) for name, value in options.items()},
        "OpenVINO": ov.get_version(),
        "CPU": [core().get_property("CPU", "FULL_DEVICE_NAME"), *sorted(capabilities)],
    }
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:32]


def _load(path: Path, options: dict[str, Any]) -> ov.CompiledModel:
    with path.open("rb") as file:
        digest, content = file.read(_DIGEST), file.read()
    if hashlib.sha256(content).digest() != digest:
        raise ValueError("it is damaged")
    os.utime(path)  # used just now
    # With the options: it would run in the precision that OpenVINO prefers, not in the one it was compiled for.
    return core().import_model(content, "CPU", options)


def _store(path: Path, stream: Any) -> None:
    """Under its name the file is whole, whatever happens meanwhile."""
    content = stream if isinstance(stream, bytes) else stream.getvalue()
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with unfinished.open("wb") as file:
            file.write(hashlib.sha256(content).digest())
            file.write(content)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    _trim(path.parent.glob("*.blob"))


def _trim(files: Iterable[Path]) -> None:
    """Delete those that were not used for longest, until the rest is small enough."""
    total = 0
    for path, stat in sorted(((path, path.stat()) for path in files), key=lambda entry: -entry[1].st_mtime):
        total += stat.st_size
        if total > LARGEST:
            path.unlink(missing_ok=True)
