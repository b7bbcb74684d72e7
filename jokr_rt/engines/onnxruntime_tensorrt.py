"""Why ONNX Runtime's own TensorRT provider is not an engine here: it takes the one TensorRT that it was linked to."""

import re
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

_INSTEAD = "use --engine tensorrt, which drives TensorRT itself (pip install 'jokr-rt[tensorrt]')"


def explanation() -> str:
    """What to say to `--engine onnxruntime-tensorrt`, for what is installed here."""
    linked, installed = _linked(), _installed()
    if linked is None:
        return f"the installed onnxruntime has no TensorRT provider; {_INSTEAD}"
    wants = f"ONNX Runtime's TensorRT provider is linked to TensorRT {linked} (libnvinfer.so.{linked})"
    if installed is None:
        return f"{wants}, which is not installed; {_INSTEAD}"
    if installed.split(".")[0] != linked:
        return f"{wants} and cannot use the installed {installed}; {_INSTEAD}"
    return f"{wants}, but runs the sampling operator without its plugin; {_INSTEAD}"


def _linked() -> str | None:
    """The major version in the name of the library that the provider asks for, such as "10"."""
    spec = find_spec("onnxruntime")
    for folder in (spec and spec.submodule_search_locations) or ():
        provider = Path(folder, "capi", "libonnxruntime_providers_tensorrt.so")
        if provider.is_file() and (found := re.search(rb"libnvinfer\.so\.(\d+)", provider.read_bytes())):
            return found[1].decode()
    return None


def _installed() -> str | None:
    try:
        return version("tensorrt")
    except PackageNotFoundError:
        return None
