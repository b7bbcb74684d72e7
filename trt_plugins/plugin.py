"""`jokr::AffineGridSample` for TensorRT: an ahead-of-time plugin, whose PTX and launch parameters go into the plan.

A plan runs with neither this file nor Python. How many threads share a pixel's channels (a tactic), TensorRT finds by
measuring on the user's GPU. Its timing cache does not know the kernel: drop it when `kernel.source_hash` is another.
"""
# No `from __future__ import annotations`: TensorRT reads the annotations as types.

import numpy as np
import numpy.typing as npt
import tensorrt as trt
import tensorrt.plugin as trtp

from trt_plugins.kernel import DEPTH, DEPTHS, compile_ptx, kernel_name, launch

PLUGIN = "jokr::AffineGridSample"  # its version is "1": TensorRT gives plugins in Python no other
_DTYPES = {trt.float32: "float32", trt.float16: "float16"}
_ptx: dict[str, bytes] = {}
_Attribute = npt.NDArray[np.int64]  # one number: for an `int`, TensorRT 10 calls int(array), which NumPy 2.4 refuses


def register(compute_capability: tuple[int, int]) -> None:
    """Make the plugin known to TensorRT, with a kernel for such a GPU; called again, only the kernel changes.

    Raises what `compile_ptx` raises, here and not inside of a build.
    """
    ptx = compile_ptx(compute_capability)
    if not _ptx:
        trtp.register(PLUGIN)(_describe)
        trtp.autotune(PLUGIN)(_autotune)
        trtp.aot_impl(PLUGIN)(_implement)
    _ptx[PLUGIN] = ptx


def _describe(heatmaps: trtp.TensorDesc, theta: trtp.TensorDesc, align_corners: _Attribute) -> trtp.TensorDesc:
    return heatmaps.like()


def _autotune(
    heatmaps: trtp.TensorDesc, theta: trtp.TensorDesc, align_corners: _Attribute, outputs: tuple[trtp.TensorDesc]
) -> list[trtp.AutoTuneCombination]:
    return [trtp.AutoTuneCombination("FP32|FP16, FP32, FP32|FP16", "LINEAR", list(DEPTHS))]


def _implement(
    heatmaps: trtp.TensorDesc,
    theta: trtp.TensorDesc,
    align_corners: _Attribute,
    outputs: tuple[trtp.TensorDesc],
    tactic: int,
) -> tuple[str | bytes, str | bytes, trtp.KernelLaunchParams, trtp.SymIntExprs]:
    batch, channels, height, width = heatmaps.shape_expr
    grid, block = launch((batch, channels, height, width), tactic or DEPTH)  # tactic 0: none was chosen
    extras = trtp.SymIntExprs(3)
    for index, extent in enumerate((channels, height, width)):
        extras[index] = trtp.SymInt32(extent)
    name = kernel_name(_DTYPES[heatmaps.dtype], int(align_corners[0]))
    return name, _ptx[PLUGIN], trtp.KernelLaunchParams(*grid, *block), extras
