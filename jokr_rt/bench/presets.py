"""Bundles to time where there is no trained one: seeded, untrained models of the presets' sizes, made once and kept."""

import hashlib
import json
import shutil
import tempfile
from importlib.util import find_spec
from pathlib import Path

from platformdirs import user_cache_path

import jokr_rt
from jokr_rt.bench import tasks
from jokr_rt.bench.machine import versions
from jokr_rt.bench.processes import Processes
from jokr_rt.bench.results import Subject
from jokr_rt.bundle import INT8, open_bundle
from jokr_rt.config import PRESETS
from jokr_rt.engines import Monitor
from jokr_rt.errors import BundleError, UsageError

BUNDLE, CHECKPOINT = "model.jokr", "model.safetensors"
_CODE = ("config.py", "bundle.py", "parity.py", "training/networks.py", "training/stages.py", "training/half.py",
         "training/seeded.py")  # fmt: skip
"""Of the package, what decides a model and its graphs; the exporter's code does, too."""


def preset_subject(preset: str, processes: Processes, monitor: Monitor) -> Subject:
    """The bundle of a key of `PRESETS`, and the checkpoint it was exported from.

    They lie in the user's cache, for this code and these libraries, and are made if they are not there: with int8
    graphs where the package that makes these is installed. Raises UsageError for an unknown preset; EngineError where
    it cannot be made, with the reason.
    """
    if preset not in PRESETS:
        raise UsageError(f"unknown preset {preset!r}; choose {' or '.join(PRESETS)}")
    cache = user_cache_path("jokr-rt") / "bench"
    folder = cache / f"{preset}-{_key(preset)}"
    name = f"preset {preset}"
    try:
        return Subject(name, open_bundle(folder / BUNDLE), folder / CHECKPOINT)
    except BundleError:  # not there, or damaged
        pass
    monitor.say(f"making an untrained model of the preset {preset}, once: it is kept in {folder}")
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".making-", dir=cache) as work:
        made = Path(work, "made")
        made.mkdir()
        processes.once(tasks.seed, config=PRESETS[preset].to_json(), checkpoint=str(made / CHECKPOINT))
        wanted = ["--precision", INT8] if find_spec("nncf") else []
        processes.jokr("export", made / CHECKPOINT, "-o", made / BUNDLE, *wanted)
        for old in cache.glob(f"{preset}-*"):
            shutil.rmtree(old)
        made.rename(folder)
    return Subject(name, open_bundle(folder / BUNDLE), folder / CHECKPOINT)


def _key(preset: str) -> str:
    """Of all that the bundle depends on."""
    package = Path(jokr_rt.__file__).parent
    files = [*(package / name for name in _CODE), *sorted((package.parent / "export").glob("*.py"))]
    about = {"config": PRESETS[preset].to_json(), "versions": versions()}
    digest = hashlib.sha256(json.dumps(about).encode())
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]
