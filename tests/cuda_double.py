"""A double of `cuda.bindings.driver` for machines without a GPU: memory that holds bytes, streams that run late.

    def test_copies(cuda_double):           # while the test runs, cuda-bindings is the double
        with Device() as device: ...
        assert cuda_double.alive() == []    # nothing was leaked

Device memory is memory of this process, so copies move bytes, and whoever computes at an address really computes. What
is enqueued is not done before someone waits, and then in an order that the seed decides among those that CUDA allows:
where a wait is missing, some seed has work read what was there before. Freed memory is overwritten.

Every call is first made to the real function, which converts its arguments, or raises TypeError, before it finds
no driver. Its enums and handles are the real ones. A free of what is not allocated, a copy outside of an allocation or
a use of a destroyed handle fails the test, by AssertionError.
"""

import ctypes
import inspect
import random
import sys
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import pytest
from cuda.bindings import driver as real

Work = Callable[[], None]
SUCCESS = real.CUresult.CUDA_SUCCESS
FREED = 0xDB
HANDLES = {
    "stream": real.CUstream, "event": real.CUevent, "module": real.CUmodule, "graph": real.CUgraph,
    "executable": real.CUgraphExec,
}  # fmt: skip


@dataclass
class _Allocation:
    kind: str  # "device" or "host"
    memory: Any
    nbytes: int


@dataclass
class _Stream:
    """queue: work with its name, and the event's record that it waits for."""

    queue: deque[tuple[str, Work, tuple["_Event", int] | None]] = field(default_factory=deque)
    captured: list[tuple[str, Work]] | None = None
    is_broken: bool = False  # its capture was invalidated


@dataclass
class _Event:
    """How often it was recorded, and how many of these the streams have come to, the last at a tick of the clock."""

    timing: bool
    recorded: int = 0
    reached: int = 0
    tick: int = 0


class CudaDouble:
    """What the driver holds.

    calls: the names of the functions called. done: what streams did, such as "HtoD 64" or "kernel", as (stream's
    handle, name), in the order it was done. launched: name, grid, block and arguments of each kernel launch; kernels:
    what they do, by name. name, capability, version: of the device.
    """

    def __init__(self, seed: int = 0) -> None:
        self.random = random.Random(seed)
        self.calls: list[str] = []
        self.done: list[tuple[int, str]] = []
        self.launched: list[tuple[str, tuple[int, ...], tuple[int, ...], tuple[int, ...]]] = []
        self.kernels: dict[str, Callable[..., None]] = {}
        self.name, self.capability, self.version = "Double of a GPU", (9, 0), 13000
        self._faults: dict[str, list[tuple[int, Any]]] = {}
        self._memory: dict[int, _Allocation] = {}
        self._freed: list[_Allocation] = []  # kept, so that whoever still reads there reads what was written at the end
        self._handles: dict[tuple[str, int], Any] = {}
        self._handle = 0x1000
        self._functions: dict[int, str] = {}
        self._contexts = 0
        self._current = threading.local()

    def fail(self, function: str, error: str, after: int = 0) -> None:
        """Have a call of `function` return this error, "CUDA_ERROR_...", when `after` more of them have succeeded."""
        self._faults.setdefault(function, []).append(
            (self.calls.count(function) + after, getattr(real.CUresult, error))
        )

    def alive(self) -> list[str]:
        """What was made and not freed: kinds of memory and handles, and contexts retained."""
        memory = [allocation.kind for allocation in self._memory.values()]
        return sorted([*memory, *(kind for kind, _ in self._handles), *["context"] * self._contexts])

    def enqueue(self, stream: int, name: str, work: Work) -> None:
        """What a library does with a stream: put work on it, or into the graph that is captured."""
        found = self._of("stream", stream)
        if found.captured is not None:
            found.captured.append((name, work))
        else:
            found.queue.append((name, work, None))

    def run(self, stream: int) -> None:
        """Do all on one stream that need not wait for another."""
        found = self._of("stream", stream)
        while found.queue and self._can_run(found):
            self._step(stream, found)

    def call(self, name: str, function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        """As the module's function does."""
        index = self.calls.count(name)
        self.calls.append(name)
        for fault in self._faults.get(name, []):
            if fault[0] == index:
                return (fault[1],)
        if name not in CONTEXT_FREE and not getattr(self._current, "context", None):
            return (real.CUresult.CUDA_ERROR_INVALID_CONTEXT,)
        result = function(self, *args)
        if isinstance(result, real.CUresult):
            return (result,)
        return (SUCCESS, *(result if isinstance(result, tuple) else () if result is None else (result,)))

    # Devices and contexts

    def cuInit(self, Flags: int) -> None:
        assert Flags == 0

    def cuDriverGetVersion(self) -> int:
        return self.version

    def cuDeviceGet(self, ordinal: int) -> Any:
        return real.CUdevice(ordinal) if ordinal == 0 else real.CUresult.CUDA_ERROR_INVALID_DEVICE

    def cuDeviceGetName(self, length: int, dev: Any) -> bytes:
        return self.name.encode().ljust(length, b"\0")

    def cuDeviceGetAttribute(self, attrib: Any, dev: Any) -> int:
        prefix = "CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_"
        return dict(zip((f"{prefix}MAJOR", f"{prefix}MINOR"), self.capability, strict=True))[attrib.name]

    def cuDevicePrimaryCtxRetain(self, dev: Any) -> Any:
        self._contexts += 1
        return real.CUcontext(0x7777)

    def cuDevicePrimaryCtxRelease(self, dev: Any) -> None:
        assert self._contexts, "a primary context was released more often than retained"
        self._contexts -= 1

    def cuCtxSetCurrent(self, ctx: Any) -> None:
        assert self._contexts, "a primary context was used after its release"
        self._current.context = int(ctx)

    def cuCtxSynchronize(self) -> Any:
        if any(stream.captured is not None for stream in self._streams()):
            return self._break_captures()
        while any(stream.queue for stream in self._streams()):
            self._step(*self._runnable())
        return None

    def cuMemGetInfo(self) -> tuple[int, int]:
        used = sum(allocation.nbytes for allocation in self._memory.values() if allocation.kind == "device")
        return (1 << 30) - used, 1 << 30

    # Memory

    def cuMemAlloc(self, bytesize: int) -> Any:
        return self._allocate("device", bytesize, real.CUdeviceptr)

    def cuMemHostAlloc(self, bytesize: int, Flags: int) -> Any:
        return self._allocate("host", bytesize, int)

    def cuMemFree(self, dptr: Any) -> Any:
        return self._free("device", dptr)

    def cuMemFreeHost(self, p: Any) -> Any:
        return self._free("host", p)

    def cuMemcpyHtoDAsync(self, dstDevice: Any, srcHost: Any, ByteCount: int, hStream: Any) -> Any:
        return self._copy("HtoD", ("device", dstDevice), ("host", srcHost), ByteCount, hStream)

    def cuMemcpyDtoHAsync(self, dstHost: Any, srcDevice: Any, ByteCount: int, hStream: Any) -> Any:
        return self._copy("DtoH", ("host", dstHost), ("device", srcDevice), ByteCount, hStream)

    def cuMemcpyDtoDAsync(self, dstDevice: Any, srcDevice: Any, ByteCount: int, hStream: Any) -> Any:
        return self._copy("DtoD", ("device", dstDevice), ("device", srcDevice), ByteCount, hStream)

    # Streams and events

    def cuStreamCreate(self, Flags: int) -> Any:
        assert Flags == int(real.CUstream_flags.CU_STREAM_NON_BLOCKING), "it would wait for the default stream"
        return self._make("stream", _Stream())

    def cuStreamDestroy(self, hStream: Any) -> None:
        self._destroy("stream", hStream)

    def cuStreamSynchronize(self, hStream: Any) -> Any:
        stream = self._of("stream", hStream)
        if stream.captured is not None:
            return self._break_captures()
        while stream.queue:
            self._step(*self._runnable())
        return None

    def cuEventCreate(self, Flags: int) -> Any:
        return self._make("event", _Event(not Flags & int(real.CUevent_flags.CU_EVENT_DISABLE_TIMING)))

    def cuEventDestroy(self, hEvent: Any) -> None:
        self._destroy("event", hEvent)

    def cuEventRecord(self, hEvent: Any, hStream: Any) -> None:
        event = self._of("event", hEvent)
        event.recorded += 1
        record = event.recorded

        def reach() -> None:
            event.reached, event.tick = record, len(self.done)

        self.enqueue(int(hStream), "record", reach)

    def cuStreamWaitEvent(self, hStream: Any, hEvent: Any, Flags: int) -> None:
        event, stream = self._of("event", hEvent), self._of("stream", hStream)
        assert stream.captured is None, "the double cannot capture a wait"
        stream.queue.append(("wait", lambda: None, (event, event.recorded)))

    def cuEventSynchronize(self, hEvent: Any) -> None:
        event = self._of("event", hEvent)
        while event.reached < event.recorded:
            self._step(*self._runnable())

    def cuEventElapsedTime(self, hStart: Any, hEnd: Any) -> Any:
        start, end = self._of("event", hStart), self._of("event", hEnd)
        if not (start.timing and end.timing):
            return real.CUresult.CUDA_ERROR_INVALID_HANDLE
        return float(end.tick - start.tick)

    # Graphs, modules and kernels

    def cuStreamBeginCapture(self, hStream: Any, mode: Any) -> None:
        stream = self._of("stream", hStream)
        assert stream.captured is None
        stream.captured, stream.is_broken = [], False

    def cuStreamEndCapture(self, hStream: Any) -> Any:
        stream = self._of("stream", hStream)
        assert stream.captured is not None
        captured, stream.captured = stream.captured, None
        if stream.is_broken:
            return real.CUresult.CUDA_ERROR_STREAM_CAPTURE_INVALIDATED
        return self._make("graph", captured)

    def cuGraphInstantiate(self, hGraph: Any, flags: int) -> Any:
        return self._make("executable", list(self._of("graph", hGraph)))

    def cuGraphDestroy(self, hGraph: Any) -> None:
        self._destroy("graph", hGraph)

    def cuGraphExecDestroy(self, hGraphExec: Any) -> None:
        self._destroy("executable", hGraphExec)

    def cuGraphLaunch(self, hGraphExec: Any, hStream: Any) -> None:
        for name, work in self._of("executable", hGraphExec):
            self.enqueue(int(hStream), f"graph {name}", work)

    def cuModuleLoadData(self, image: bytes) -> Any:
        assert image.endswith(b"\0"), "PTX has to end with a zero"
        return self._make("module", image)

    def cuModuleUnload(self, hmod: Any) -> None:
        self._destroy("module", hmod)

    def cuModuleGetFunction(self, hmod: Any, name: bytes) -> Any:
        if name not in self._of("module", hmod):
            return real.CUresult.CUDA_ERROR_NOT_FOUND
        self._functions[int(hmod)] = name.decode()
        return real.CUfunction(int(hmod))

    def cuLaunchKernel(
        self, f: Any, gridDimX: int, gridDimY: int, gridDimZ: int, blockDimX: int, blockDimY: int, blockDimZ: int,
        sharedMemBytes: int, hStream: Any, kernelParams: Any, extra: int,
    ) -> None:  # fmt: skip
        name, (values, types) = self._functions[int(f)], kernelParams
        assert len(values) == len(types)
        grid, block = (gridDimX, gridDimY, gridDimZ), (blockDimX, blockDimY, blockDimZ)
        self.launched.append((name, grid, block, tuple(values)))
        self.enqueue(int(hStream), f"kernel {name}", lambda: self.kernels[name](grid, block, *values))

    # What these are made of

    def _allocate(self, kind: str, nbytes: int, wrap: Callable[[int], Any]) -> Any:
        if any(stream.captured is not None for stream in self._streams()):
            return self._break_captures()
        if nbytes == 0:
            return real.CUresult.CUDA_ERROR_INVALID_VALUE
        memory = (ctypes.c_ubyte * nbytes)()
        ctypes.memset(memory, 0xA5, nbytes)  # what nobody wrote is not zero
        address = ctypes.addressof(memory)
        self._memory[address] = _Allocation(kind, memory, nbytes)
        return wrap(address)

    def _free(self, kind: str, pointer: Any) -> None:
        allocation = self._memory.pop(int(pointer), None)
        assert allocation is not None, f"{kind} memory at {int(pointer):#x} was freed twice, or never allocated"
        assert allocation.kind == kind, f"{allocation.kind} memory was freed as {kind} memory"
        ctypes.memset(allocation.memory, FREED, allocation.nbytes)
        self._freed.append(allocation)

    def _copy(self, name: str, target: tuple[str, Any], source: tuple[str, Any], nbytes: int, stream: Any) -> None:
        def work() -> None:
            for kind, pointer in (target, source):
                assert self._holds(kind, int(pointer), nbytes), f"{name}: {kind} memory that was freed meanwhile"
            ctypes.memmove(int(target[1]), int(source[1]), nbytes)

        for kind, pointer in (target, source):
            assert self._holds(kind, int(pointer), nbytes), f"{name}: {nbytes} bytes are not in {kind} memory"
        self.enqueue(int(stream), f"{name} {nbytes}", work)

    def _holds(self, kind: str, pointer: int, nbytes: int) -> bool:
        return any(
            allocation.kind == kind and address <= pointer and pointer + nbytes <= address + allocation.nbytes
            for address, allocation in self._memory.items()
        )

    def _make(self, kind: str, state: Any) -> Any:
        self._handle += 0x10
        self._handles[kind, self._handle] = state
        return HANDLES[kind](self._handle)

    def _of(self, kind: str, handle: Any) -> Any:
        assert isinstance(handle, (int, HANDLES[kind])), f"{handle!r} is no {kind}"
        assert (kind, int(handle)) in self._handles, f"{kind} {int(handle):#x} was destroyed, or never made"
        return self._handles[kind, int(handle)]

    def _destroy(self, kind: str, handle: Any) -> None:
        self._of(kind, handle)
        del self._handles[kind, int(handle)]

    def _streams(self) -> list[_Stream]:
        return [state for (kind, _), state in self._handles.items() if kind == "stream"]

    def _runnable(self) -> tuple[int, _Stream]:
        streams = [(handle, state) for (kind, handle), state in self._handles.items() if kind == "stream"]
        ready = [(handle, stream) for handle, stream in streams if stream.queue and self._can_run(stream)]
        assert ready, "a deadlock: every stream waits for an event that none will reach"
        return self.random.choice(ready)

    def _can_run(self, stream: _Stream) -> bool:
        wait = stream.queue[0][2]
        return wait is None or wait[0].reached >= wait[1]

    def _step(self, handle: int, stream: _Stream) -> None:
        name, work, _ = stream.queue.popleft()
        work()
        if name not in ("wait", "record"):
            self.done.append((handle, name))

    def _break_captures(self) -> Any:
        for stream in self._streams():
            stream.is_broken |= stream.captured is not None
        return real.CUresult.CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED


CONTEXT_FREE = (
    "cuInit", "cuDriverGetVersion", "cuDeviceGet", "cuDeviceGetName", "cuDeviceGetAttribute",
    "cuDevicePrimaryCtxRetain", "cuDevicePrimaryCtxRelease", "cuCtxSetCurrent",
)  # fmt: skip


def install(patch: pytest.MonkeyPatch, seed: int = 0) -> CudaDouble:
    """Make a new double what `from cuda.bindings import driver` gives, until `patch` is undone."""
    double = CudaDouble(seed)
    module = ModuleType("cuda.bindings.driver", __doc__)
    module.__dict__.update({name: value for name, value in vars(real).items() if isinstance(value, type)})
    for name, function in vars(CudaDouble).items():
        if name.startswith("cu"):
            setattr(module, name, _function(double, name, function))
    patch.setattr("cuda.bindings.driver", module)
    patch.setitem(sys.modules, "cuda.bindings.driver", module)
    return double


def _function(double: CudaDouble, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    genuine = getattr(real, name)
    parameters = list(inspect.signature(function).parameters)[1:]
    assert parameters == list(inspect.signature(genuine).parameters), f"{name} of cuda-bindings takes others"

    def call(*args: Any) -> Any:
        if not _driver_is_here():
            with pytest.raises(RuntimeError, match="NVIDIA driver library|libcuda"):
                genuine(*args)
        return double.call(name, function, args)

    return call


def _driver_is_here() -> bool:
    try:
        real.cuInit(0)
    except RuntimeError:
        return False
    return True
