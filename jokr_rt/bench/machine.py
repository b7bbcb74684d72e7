"""What ran a benchmark: processor, versions, and which code."""

import os
import platform
import subprocess
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jokr_rt

PACKAGES = ("openvino", "onnxruntime", "torch", "nncf", "numpy", "av")
_ARITHMETIC = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8", "avx_vnni", "asimd", "sve")
"""Of the processor's instructions, those that decide how fast a network can be."""


def machine() -> dict[str, Any]:
    return {
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "instructions": [name for name in _ARITHMETIC if name in _cpuinfo("flags", "Features").split()],
        "system": f"{platform.system()} {platform.release()}",
    }


def processor() -> str:
    """Its name, which Linux knows and Python does not tell."""
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def busy(seconds: float = 1.0) -> float | None:
    """Share of all cores' time that goes to others while this process waits, 0 to 1; None where it is not told."""
    before = _ticks()
    time.sleep(seconds)
    after = _ticks()
    if before is None or after is None or after[1] == before[1]:
        return None
    return 1 - (after[0] - before[0]) / (after[1] - before[1])


def versions() -> dict[str, str]:
    """Of this project, Python, and those of `PACKAGES` that are installed."""
    found = {"jokr-rt": jokr_rt.__version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def revision() -> dict[str, Any] | None:
    """Commit of the source tree that runs, and whether its code was changed since; None where it is not in git."""
    root = Path(jokr_rt.__file__).parents[1]
    commit = _git(root, "rev-parse", "HEAD") if (root / ".git").exists() else None
    if commit is None:
        return None
    changed = _git(root, "status", "--porcelain", "--", "jokr_rt", "export", "benchmarks/*.py")
    return {"commit": commit, "is_changed": bool(changed)}


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False)
    except OSError:  # no git
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _ticks() -> tuple[int, int] | None:
    """Of all cores since the start of the machine: idle ones, and all. See proc_stat(5)."""
    try:
        _, *counts = Path("/proc/stat").read_text(encoding="ascii").splitlines()[0].split()
    except OSError:
        return None
    user, nice, system, idle, waiting, *rest = map(int, counts[:8])  # what guests take is counted in user and nice
    return idle + waiting, user + nice + system + idle + waiting + sum(rest)


def _cpuinfo(*fields: str) -> str:
    """The first line of Linux's list that has one of these names; "" elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    named = (line.split(":", 1)[1].strip() for line in lines if line.split(":")[0].strip() in fields)
    return next(named, "")
