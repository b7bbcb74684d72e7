"""The sampling kernel alone: is it right, how near a device copy, how much faster than PyTorch's pair of operators."""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import torch
import torch.nn.functional as F
from gpu_report import Row, median_per_call, sampler_bytes
from torch import Tensor

from jokr_rt.engines.cuda import Device, Kernel, Stream
from jokr_rt.training.cuda_engine import tensor_on
from trt_plugins.kernel import DEPTH, DEPTHS, compile_ptx, kernel_name, launch

CHANNELS, SIDE = 10, 128  # heatmaps of the presets
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
TOLERANCES = {"float32": 1e-4, "float16": 2e-3}
CALLS = 50  # in a graph, or back to back
REPEATS = 15
CAN_COMPILE = find_spec("triton") is not None


class Sampler:
    """Our kernel on tensors: heatmaps (N, C, H, W) and theta (N, 2, 3), in device memory of our own."""

    def __init__(self, device: Device, stream: Stream, image: bytes, shape: tuple[int, int, int, int], dtype: str):
        self.shape, self.stream = shape, stream
        self.kernel: Kernel = device.kernel(image, kernel_name(dtype))
        count, itemsize = torch.Size(shape).numel(), {"float32": 4, "float16": 2}[dtype]
        self.memory = [device.buffer(count * itemsize), device.buffer(shape[0] * 24), device.buffer(count * itemsize)]
        shapes = (shape, dtype), ((shape[0], 2, 3), "float32"), (shape, dtype)
        tensors = (tensor_on(buffer, *each) for buffer, each in zip(self.memory, shapes, strict=True))
        self.heatmaps, self.theta, self.sampled = tensors

    def launch(self, depth: int = DEPTH) -> None:
        """As `aot_impl` launches it: its grid and block, and its arguments in TensorRT's order."""
        heatmaps, theta, sampled = self.memory
        grid, block = launch(self.shape, depth)
        self.stream.launch_kernel(self.kernel, grid, block, heatmaps, theta, *self.shape[1:], sampled)

    def close(self) -> None:
        for made in (*self.memory, self.kernel):
            made.close()


def pair(heatmaps: Tensor, theta: Tensor) -> Tensor:
    """What PyTorch has for it, both in one dtype: it samples 16 bits on a grid of 16 bits only."""
    grid = F.affine_grid(theta, list(heatmaps.shape), align_corners=False)
    return F.grid_sample(heatmaps, grid, align_corners=False)


def thetas(batch: int, reach: float, seed: int = 0) -> Tensor:
    """(N, 2, 3) on the CPU: the identity, and noise of this standard deviation."""
    noise = torch.randn(batch, 2, 3, generator=torch.Generator().manual_seed(seed))
    return torch.eye(2, 3) + reach * noise


def largest_error(sampler: Sampler, reach: float, depth: int) -> float:
    """Of random heatmaps in [0, 1], against PyTorch in float64."""
    generator = torch.Generator("cuda").manual_seed(1)
    sampler.heatmaps.copy_(torch.rand(sampler.shape, generator=generator, device="cuda"))
    sampler.theta.copy_(thetas(sampler.shape[0], reach))
    sampler.sampled.fill_(float("nan"))
    torch.cuda.synchronize()
    sampler.launch(depth)
    sampler.stream.synchronize()
    expected = pair(sampler.heatmaps.double(), sampler.theta.double())
    return float((sampler.sampled.double() - expected).abs().amax())  # NaN stays NaN, and is no pass


@contextmanager
def samplers(device: Device, stream: Stream, dtype: str, batches: tuple[int, ...]) -> Iterator[Iterator[Sampler]]:
    """One after the other, each closed before the next is made."""
    image = compile_ptx(device.compute_capability)
    made: list[Sampler] = []

    def each() -> Iterator[Sampler]:
        for batch in batches:
            made.append(Sampler(device, stream, image, (batch, CHANNELS, SIDE, SIDE), dtype))
            yield made[-1]
            made.pop().close()

    try:
        yield each()
    finally:
        for sampler in made:
            sampler.close()


def measure_kernel(device: Device, tell: Callable[[str], None]) -> list[Row]:
    """A row for each dtype and batch."""
    stream = device.stream()
    rows = []
    with torch.no_grad(), torch.cuda.stream(torch.cuda.ExternalStream(stream.handle)):
        for dtype in TOLERANCES:
            with samplers(device, stream, dtype, BATCHES) as each:
                for sampler in each:
                    tell(f"kernel {dtype}, N = {sampler.shape[0]}")
                    rows.append(_row(sampler, dtype))
    stream.close()
    return rows


def _row(sampler: Sampler, dtype: str) -> Row:
    errors = [largest_error(sampler, reach, depth) for reach in (0.0, 0.2, 1.0) for depth in DEPTHS]
    error = max(errors) if all(error == error for error in errors) else float("nan")
    sampler.theta.copy_(thetas(sampler.shape[0], 0.02))  # nearly all is read
    in_graph = {depth: _graph_ms(sampler.stream, lambda depth=depth: sampler.launch(depth)) for depth in DEPTHS}
    depth = min(in_graph, key=lambda each: in_graph[each])  # TensorRT times them too
    target = torch.empty_like(sampler.sampled)
    copy_ms = _torch_graph_ms(lambda: target.copy_(sampler.heatmaps))
    inputs = sampler.heatmaps, sampler.theta.to(sampler.heatmaps.dtype)
    nbytes = sampler_bytes(sampler.shape, sampler.heatmaps.element_size())
    row = {
        "dtype": dtype,
        "batch": sampler.shape[0],
        "max_error": error,
        "right": error <= TOLERANCES[dtype],
        "depth": depth,
        "launched_ms": _calls_ms(lambda: sampler.launch(depth)),
        "eager_ms": _calls_ms(lambda: pair(*inputs)),
        "graph_ms": in_graph[depth],
        "eager_graph_ms": _torch_graph_ms(lambda: pair(*inputs)),
        "copy_ms": copy_ms,
        "gb_per_s": nbytes / in_graph[depth] / 1e6,
        "of_copy": copy_ms / in_graph[depth],
    }
    return row | _compiled(inputs) if CAN_COMPILE else row


def _compiled(inputs: tuple[Tensor, Tensor]) -> Row:
    torch.compiler.reset()  # else it gives up compiling for new shapes after a few
    compiled = torch.compile(pair, dynamic=False)
    return {
        "compiled_ms": _calls_ms(lambda: compiled(*inputs)),
        "compiled_graph_ms": _torch_graph_ms(lambda: compiled(*inputs)),
    }


def _calls_ms(call: Callable[[], Any]) -> float:
    """Milliseconds of one call among many back to back, as Python makes them."""
    return timed(lambda: [call() for _ in range(CALLS)], CALLS)


def _graph_ms(stream: Stream, call: Callable[[], None]) -> float:
    """Milliseconds of one launch among many in a CUDA graph of ours: the device's own time."""

    def calls() -> None:
        for _ in range(CALLS):
            call()

    graph = stream.capture(calls)
    try:
        return timed(lambda: stream.launch_graph(graph), CALLS)
    finally:
        stream.synchronize()
        graph.close()


def _torch_graph_ms(call: Callable[[], Any]) -> float:
    """The same for what PyTorch captures."""
    for _ in range(3):
        call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=torch.cuda.current_stream()):
        for _ in range(CALLS):
            call()
    found = timed(graph.replay, CALLS)
    del graph
    gc.collect()
    return found


def timed(work: Callable[[], Any], calls: int = 1) -> float:
    """Milliseconds on the current stream of one of the `calls` calls that `work` makes: the median over `REPEATS`."""
    for _ in range(3):
        work()
    times = []
    for _ in range(REPEATS):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        work()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return median_per_call(times, calls)
