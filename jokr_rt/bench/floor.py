"""How fast this machine computes and reads at best: what no engine can be faster than.

Peaks are those of OpenVINO's kernels, which its CPU plugin takes from oneDNN, on layers that suit them: what a network
would reach if every layer of it did. That they ran in the precision asked for is read off the compiled model.
"""

import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import product
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino import opset13 as ops
from openvino.properties import hint

from jokr_rt.bench.child import Found
from jokr_rt.engines.openvino_graphs import core

SHAPES = {
    "convolution 3 x 3, 256 channels, 32 x 32": (256, 32, 3),
    "convolution 3 x 3, 512 channels, 16 x 16": (512, 16, 3),
    "convolution 2 x 2, 256 channels, 32 x 32": (256, 32, 2),
    "convolution 3 x 3, 128 channels, 64 x 64": (128, 64, 3),
    "convolution 1 x 1, 1024 channels, 32 x 32": (1024, 32, 1),  # a product of matrices
}
"""Channels, side and kernel of layers that suit a processor."""
LAYERS, REPEATS = 3, 3
BYTES = 256 << 20  # far more than any cache has
_HINTS = {"fp32": ov.Type.f32, "bf16": ov.Type.bf16, "int8": ov.Type.f32}
_RAN = {"f32": "fp32", "bf16": "bf16", "f16": "fp16", "i8": "int8", "u8": "int8"}


class Peaks:
    """Compiles layers in each precision that the processor has, and times them; and reads memory.

    precisions: those in which the layers really run.
    """

    def __init__(self) -> None:
        self._layers: dict[tuple[str, str], Callable[[], Any]] = {}
        for name, precision in product(SHAPES, _HINTS):
            with suppress(RuntimeError):  # a processor without such arithmetic
                run, ran = compile_layers(*SHAPES[name], precision)
                if ran == precision:
                    self._layers[name, precision] = run
        self.precisions = list(dict.fromkeys(precision for _, precision in self._layers))
        threads = os.cpu_count() or 1
        self._numbers = np.array_split(np.ones(BYTES // 8, np.int64), threads)
        self._pool = ThreadPoolExecutor(threads)

    def measure(self) -> Found:
        """FLOP/s of each layer by precision, and bytes/s read by all cores together."""
        peaks: dict[str, dict[str, float]] = {precision: {} for precision in self.precisions}
        for (name, precision), run in self._layers.items():
            channels, side, kernel = SHAPES[name]
            flops = 2 * LAYERS * (channels * side * kernel) ** 2
            peaks[precision][name] = flops / _seconds(run)
        return {"flops_per_s": peaks, "read_bytes_per_s": BYTES / _seconds(self._read)}

    def _read(self) -> None:
        list(self._pool.map(np.bitwise_or.reduce, self._numbers))  # without the interpreter's lock


def _seconds(run: Callable[[], object]) -> float:
    """Of the median of a few, after one for warming up."""
    run()
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def compile_layers(channels: int, side: int, kernel: int, precision: str) -> tuple[Callable[[], Any], str]:
    """What runs the layers once, and the precision that they run in."""
    model = _model(channels, side, kernel, is_quantised=precision == "int8")
    options = {hint.inference_precision: _HINTS[precision], hint.performance_mode: hint.PerformanceMode.LATENCY}
    compiled = core().compile_model(model, "CPU", options)
    request = compiled.create_infer_request()
    request.set_input_tensor(ov.Tensor(_numbers((1, channels, side, side))))
    return request.infer, _precision_of(compiled)


def _precision_of(compiled: ov.CompiledModel) -> str:
    """Of the convolutions, where it is the same for all; they may be carried out as matrix products."""
    found = set()
    for node in compiled.get_runtime_model().get_ops():
        about = node.get_rt_info()
        if about["layerType"].astype(str) in ("Convolution", "FullyConnected", "MatMul"):
            found.add(_RAN.get(about["runtimePrecision"].astype(str), "another"))
    return found.pop() if len(found) == 1 else "several"


def _model(channels: int, side: int, kernel: int, is_quantised: bool) -> ov.Model:
    weights = _numbers((channels, channels, kernel, kernel)) / np.float32(channels**0.5 * kernel)
    values = start = ops.parameter([1, channels, side, side], np.float32)
    for _ in range(LAYERS):
        kernels = ops.constant(weights)
        if is_quantised:
            largest = float(np.abs(weights).max())
            values, kernels = _quantised(values, 0, 4, 256), _quantised(kernels, -largest, largest, 255)
        before, after = (kernel - 1) // 2, kernel // 2
        values = ops.relu(ops.convolution(values, kernels, [1, 1], [before] * 2, [after] * 2, [1, 1]))
    return ov.Model([values], [start], "peak")


def _quantised(values: ov.Node, low: float, high: float, levels: int) -> ov.Node:
    bounds = [ops.constant(np.float32(bound)) for bound in (low, high)]
    return ops.fake_quantize(values, *bounds, *bounds, levels)


def _numbers(shape: tuple[int, ...]) -> NDArray[np.float32]:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)
