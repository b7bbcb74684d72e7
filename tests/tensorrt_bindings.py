"""The real TensorRT bindings for Python on a machine that has neither a GPU nor libnvinfer.

The bindings are a wheel of their own, which pip can fetch; the libraries that they are linked to are not. `make test`
unpacks the wheels of each of VERSIONS (tensorrt-VERSION.txt, pinned and hash-checked) into a folder under .venv, and
`python tests/tensorrt_bindings.py FOLDER` compiles a library there that stands in for libnvinfer, its plugin library
and its ONNX parser. Where the lean runtime is among the wheels it is linked to that, and the plugin registry is real.
Builder, parser, refitter and runtime cannot be had: making one ends the process, and says what was called.

    load("11.4")                       the real module `tensorrt` in this process
    run("10.16", "tests.some_module")  a module in a process of its own, which loads that version
"""

import importlib
import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
NEWEST = "11.4"
WITH_REGISTRY = (NEWEST, "10.16")  # the versions whose lean runtime can be had too
VERSIONS = (*WITH_REGISTRY, "10.9")

STAND_INS = """
#include <cstdio>
#include <cstdlib>
#define ABSENT(name) extern "C" void* name() { std::fputs("no libnvinfer here: " #name "\\n", stderr); std::abort(); }
ABSENT(createInferBuilder_INTERNAL)
ABSENT(createInferRefitter_INTERNAL)
ABSENT(createInferRuntime_INTERNAL)
ABSENT(createNvOnnxParser_INTERNAL)
ABSENT(createNvOnnxParserRefitter_INTERNAL)
ABSENT(getNvOnnxParserVersion)
ABSENT(getBuilderPluginRegistry)
extern "C" bool initLibNvInferPlugins(void*, char const*) { return true; }
"""
NO_REGISTRY = 'extern "C" void* getPluginRegistry() { return nullptr; }\n'

# The package `tensorrt` itself comes as source only, and fetches the libraries when it is built. This is all it holds.
FRONTEND = "from tensorrt_bindings import *\nfrom tensorrt_bindings import __version__\n"
FRONTEND_PLUGIN = "from tensorrt_bindings.plugin import *\n"


def folder(version: str) -> Path:
    """Where the bindings of `version` are. The test fails where `make test` has not put them there."""
    path = ROOT / ".venv" / f"tensorrt-{version}"
    if not (path / "ready").exists():
        pytest.fail(f"no TensorRT {version} bindings in .venv/{path.name}: `make test` sets them up", pytrace=False)
    return path


@cache
def load(version: str) -> ModuleType:
    """The real module `tensorrt` of `version`, with its `plugin`; one version in a process. It is not left importable.

    It does not disturb PyTorch and ONNX Runtime: their CPU builds know nothing of libnvinfer.
    """
    sys.path.insert(0, str(folder(version)))
    try:
        real = importlib.import_module("tensorrt.plugin")
    finally:
        sys.path.pop(0)
    del sys.modules["tensorrt.plugin"]
    module = sys.modules.pop("tensorrt")
    assert module.plugin is real
    assert module.__version__.startswith(f"{version}.")
    return module


def run(version: str, module: str, *arguments: str) -> Any:
    """What `python -m module version arguments...` prints last, as JSON, in a process of its own."""
    command = [sys.executable, "-m", module, version, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{' '.join(command)}: exit status {done.returncode}\n{done.stdout}{done.stderr}"
    return json.loads(done.stdout.splitlines()[-1])  # TensorRT's logger prints too


def complete(wheels: Path) -> None:
    """Make the wheels unpacked in the folder tensorrt-VERSION importable: the stand-ins, and the package `tensorrt`."""
    major = wheels.name.removeprefix("tensorrt-").split(".")[0]
    bindings, frontend = wheels / "tensorrt_bindings", wheels / "tensorrt"
    library = bindings / f"libnvinfer.so.{major}"
    lean = list(wheels.glob(f"tensorrt_lean_libs/libnvinfer_lean.so.{major}"))
    command = ["g++", "-shared", "-fPIC", "-o", library, "-x", "c++", "-", "-x", "none", "-Wl,--no-as-needed", *lean]
    command += ["-Wl,-rpath,$ORIGIN/../tensorrt_lean_libs"]
    subprocess.run(command, input=STAND_INS + ("" if lean else NO_REGISTRY), check=True, text=True)
    for name in ("libnvinfer_plugin", "libnvonnxparser"):  # the bindings look for all three beside themselves
        (bindings / f"{name}.so.{major}").symlink_to(library.name)
    (frontend / "plugin").mkdir(parents=True)
    (frontend / "__init__.py").write_text(FRONTEND)
    (frontend / "plugin" / "__init__.py").write_text(FRONTEND_PLUGIN)


if __name__ == "__main__":
    complete(Path(sys.argv[1]))
