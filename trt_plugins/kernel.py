"""The CUDA kernel of `jokr::AffineGridSample`: its source, its launch and its compilation to PTX on the user's machine.

Arguments of each kernel, in TensorRT's order (inputs, extras, outputs): heatmaps, theta, int32 C, H and W, sampled.
Importing this needs neither CUDA nor TensorRT; `compile_ptx` needs cuda-bindings and NVRTC, but no GPU and no driver.
"""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from jokr_rt.errors import EngineError, EngineMissingError

SOURCE = Path(__file__).with_name("affine_grid_sample.cu")
TILE = (32, 4)  # pixels of a block along x and y; a picture of 128 x 128 is 128 blocks, and an H100 runs 132 at once
DEPTHS = (1, 2, 4)  # threads that share a pixel's channels: 1 for large batches, more for a single picture
DEPTH = 2

# Each architecture with the oldest PTX ISA that knows it: a driver that knows the GPU can read the PTX, however new the
# NVRTC that wrote it. From the release history in NVIDIA's "Parallel Thread Execution ISA".
PTX_ISA = {(7, 5): "6.3", (8, 0): "7.0", (9, 0): "7.8", (10, 0): "8.6", (12, 0): "8.7"}
_HOW_TO_GET = "pip install 'jokr-rt[tensorrt]'"


def kernel_name(dtype: str, align_corners: int = 0) -> str:
    """Of heatmaps of `dtype`, "float32" or "float16"."""
    return f"affine_grid_sample_{dtype}{'_aligned' if align_corners else ''}"


def launch(shape: Sequence[Any], depth: int = DEPTH) -> tuple[tuple[Any, Any, Any], tuple[int, int, int]]:
    """Grid and block, each (x, y, z), for heatmaps (N, C, H, W): integers, or TensorRT's symbolic dimensions.

    depth: threads along the channels. CUDA allows grids of up to 65,535 in z, which is N, and in y.
    """
    batch, _, height, width = shape
    columns, rows = TILE
    return ((width + (columns - 1)) // columns, (height + (rows - 1)) // rows, batch), (columns, rows, depth)


def source_hash() -> str:
    """SHA-256, in hex, of all that decides what a plan holds of the plugin: kernel, launch, compilation, tactics."""
    digest = hashlib.sha256()
    for path in (SOURCE, Path(__file__), Path(__file__).with_name("plugin.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def compile_ptx(compute_capability: tuple[int, int]) -> bytes:
    """The PTX of all kernels for a GPU, such as (9, 0), compiled by NVRTC.

    Raises EngineMissingError without cuda-bindings or NVRTC, EngineError for a GPU older than either can serve.
    """
    nvrtc = _nvrtc()
    program = _call(nvrtc, "nvrtcCreateProgram", SOURCE.read_bytes(), SOURCE.name.encode(), 0, [], [])
    try:
        architecture = _architecture(nvrtc, compute_capability)
        options = [b"--std=c++17", b"--gpu-architecture=compute_%d%d" % architecture]
        (result,) = nvrtc.nvrtcCompileProgram(program, len(options), options)
        if result != nvrtc.nvrtcResult.NVRTC_SUCCESS:
            log = _text(nvrtc, "nvrtcGetProgramLog", program).decode(errors="replace")
            raise EngineError(f"NVRTC cannot compile {SOURCE.name} ({result.name}): {' '.join(log.split())}")
        ptx = _text(nvrtc, "nvrtcGetPTX", program)
    finally:
        nvrtc.nvrtcDestroyProgram(program)
    return re.sub(rb"(?m)^\.version .*$", f".version {PTX_ISA[architecture]}".encode(), ptx, count=1)


def _nvrtc() -> ModuleType:
    try:
        from cuda.bindings import nvrtc
    except ImportError as error:
        raise EngineMissingError(f"the package cuda-bindings is not installed ({error}): {_HOW_TO_GET}") from None
    try:
        nvrtc.nvrtcVersion()
    except RuntimeError as error:  # the bindings look for the library only now
        first_line = next(iter(str(error).splitlines()), "")
        raise EngineMissingError(f"NVRTC, CUDA's compiler, is not here ({first_line}): {_HOW_TO_GET}") from None
    return nvrtc


def _architecture(nvrtc: ModuleType, compute_capability: tuple[int, int]) -> tuple[int, int]:
    """The newest of `PTX_ISA` that this NVRTC compiles for and that the GPU can run: PTX runs on later GPUs too."""
    compiled = {divmod(number, 10) for number in _call(nvrtc, "nvrtcGetSupportedArchs")}
    shared = [architecture for architecture in PTX_ISA if architecture in compiled]
    usable = [architecture for architecture in shared if architecture <= compute_capability]
    if not usable:
        wanted, *others = (f"{major}.{minor}" for major, minor in [compute_capability, *shared])
        version = "{}.{}".format(*_call(nvrtc, "nvrtcVersion"))
        raise EngineError(
            f"no kernel for a GPU of compute capability {wanted}: NVRTC {version} can make those for "
            f"{', '.join(others)} and later"
        )
    return max(usable)


def _text(nvrtc: ModuleType, getter: str, program: Any) -> bytes:
    buffer = b" " * _call(nvrtc, f"{getter}Size", program)
    _call(nvrtc, getter, program, buffer)
    return buffer.rstrip(b"\0")


def _call(nvrtc: ModuleType, name: str, *arguments: Any) -> Any:
    """What the NVRTC function `name` returns besides its result code: nothing, one value, or several as a tuple."""
    result, *values = getattr(nvrtc, name)(*arguments)
    if result != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        raise EngineError(f"{name} failed: {result.name}")
    return values[0] if len(values) == 1 else tuple(values)
