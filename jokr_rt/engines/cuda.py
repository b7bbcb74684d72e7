"""The CUDA driver in a thin layer over cuda-bindings: devices, memory, streams, graphs, kernels. No PyTorch.

A device frees what was made on it when it is closed. Every failing call raises EngineError with its name.

    with Device() as device:
        stream, buffer, host = device.stream(), device.buffer(64), device.pinned((64,), "uint8")
        stream.copy_in(buffer, host, 64)
        stream.synchronize()
"""

import ctypes
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from jokr_rt.errors import EngineError, EngineMissingError

_NO_DEVICE = ("CUDA_ERROR_NO_DEVICE", "CUDA_ERROR_STUB_LIBRARY", "CUDA_ERROR_INVALID_DEVICE")

Triple = tuple[int, int, int]


class Device:
    """A GPU, with all that is made on it; a context manager that frees it. One thread at a time, any thread.

    index: as CUDA_VISIBLE_DEVICES orders them. It is used through its primary context, which the CUDA runtime, ONNX
    Runtime and PyTorch use too. Raises EngineMissingError where there is no cuda-bindings, no driver or no such GPU.
    """

    def __init__(self, index: int = 0) -> None:
        self._context: Any = None
        self._made: dict[_Made, None] = {}  # in the order they were made
        self._driver = _driver()
        try:
            _call(self._driver, "cuInit", 0)
            self._handle = _call(self._driver, "cuDeviceGet", index)
        except EngineError as error:
            if not str(error).endswith(_NO_DEVICE):
                raise
            raise EngineMissingError(f"no NVIDIA GPU {index} here ({error}); see nvidia-smi") from None
        except RuntimeError as error:  # from the bindings themselves, which look for the driver now
            words = next(iter(str(error).splitlines()), "")
            raise EngineMissingError(f"no NVIDIA driver here ({words}); install it from nvidia.com/drivers") from None
        self._context = _call(self._driver, "cuDevicePrimaryCtxRetain", self._handle)

    @property
    def name(self) -> str:
        """Such as "NVIDIA H100 80GB HBM3"."""
        return str(self.call("cuDeviceGetName", 256, self._handle).split(b"\0")[0].decode())

    @property
    def compute_capability(self) -> tuple[int, int]:
        """Such as (9, 0)."""
        names = (f"CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_{part}" for part in ("MAJOR", "MINOR"))
        attributes = (getattr(self._driver.CUdevice_attribute, name) for name in names)
        major, minor = (int(self.call("cuDeviceGetAttribute", each, self._handle)) for each in attributes)
        return major, minor

    @property
    def driver_version(self) -> str:
        """The newest CUDA that the driver supports, such as "13.0"."""
        version = self.call("cuDriverGetVersion")
        return f"{version // 1000}.{version % 1000 // 10}"

    @property
    def memory(self) -> tuple[int, int]:
        """Bytes free, and bytes in all."""
        free, total = self.call("cuMemGetInfo")
        return int(free), int(total)

    def buffer(self, nbytes: int) -> "DeviceBuffer":
        """Device memory of `nbytes` bytes, not cleared."""
        return DeviceBuffer(self, nbytes)

    def pinned(self, shape: Sequence[int], dtype: DTypeLike) -> "PinnedArray":
        """An array in page-locked host memory, which copies need to run beside anything else. Not cleared."""
        return PinnedArray(self, shape, dtype)

    def stream(self) -> "Stream":
        """A stream that does not wait for the default stream."""
        return Stream(self)

    def event(self, timing: bool = False) -> "Event":
        """A point in a stream. timing: for `Event.milliseconds_since`."""
        return Event(self, timing)

    def kernel(self, image: bytes, name: str) -> "Kernel":
        """A kernel of a PTX or cubin image."""
        return Kernel(self, image, name)

    def call(self, function: str, *args: Any) -> Any:
        """The result of a driver function in this device's context: None, a value or a tuple. Raises EngineError."""
        if self._context is None:
            raise EngineError(f"{function}: the device is closed")
        _call(self._driver, "cuCtxSetCurrent", self._context)
        return _call(self._driver, function, *args)

    def synchronize(self) -> None:
        """Wait for all work on the device that this process has given it."""
        self.call("cuCtxSynchronize")

    @contextmanager
    def all_or_nothing(self) -> Iterator[None]:
        """What is made on the device in this block is freed if the block raises."""
        before = set(self._made)
        try:
            yield
        except BaseException:
            for made in reversed([made for made in self._made if made not in before]):
                made.close()
            raise

    def close(self) -> None:
        """Wait for the work in flight, and free everything made here, the last first. May be called twice."""
        if self._context is None:
            return
        # What fails here failed before, and was said then: an error on the device sticks to its context.
        with suppress(EngineError):
            self.synchronize()
        for made in reversed(list(self._made)):
            made.close()
        self._context = None
        with suppress(EngineError):
            _call(self._driver, "cuDevicePrimaryCtxRelease", self._handle)

    def __enter__(self) -> "Device":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


class _Made:
    """Something made on a device, which frees it once: at its own close or the device's."""

    def __init__(self, device: Device, free: str, handle: Any) -> None:
        self.device, self._free, self._handle = device, free, handle
        device._made[self] = None

    @property
    def handle(self) -> int:
        """The driver's own, for other libraries. Raises EngineError when it is closed."""
        if self._handle is None:
            raise EngineError(f"{type(self).__name__.lower()}: used after it was closed")
        return int(self._handle)

    def close(self) -> None:
        """Free it. May be called twice."""
        if self._handle is None:
            return
        handle, self._handle = self._handle, None
        del self.device._made[self]
        with suppress(EngineError):  # see Device.close
            self.device.call(self._free, handle)


class DeviceBuffer(_Made):
    """Device memory. `handle` is its address."""

    def __init__(self, device: Device, nbytes: int) -> None:
        self.nbytes = nbytes
        super().__init__(device, "cuMemFree", device.call("cuMemAlloc", nbytes))


class PinnedArray(_Made):
    """An array in page-locked host memory. `handle` is its address."""

    def __init__(self, device: Device, shape: Sequence[int], dtype: DTypeLike) -> None:
        count = math.prod(shape)
        self.nbytes = count * np.dtype(dtype).itemsize
        super().__init__(device, "cuMemFreeHost", device.call("cuMemHostAlloc", self.nbytes, 0))
        memory = (ctypes.c_byte * self.nbytes).from_address(self.handle)
        self._array: NDArray[Any] = np.frombuffer(memoryview(memory), dtype, count).reshape(shape)

    @property
    def array(self) -> NDArray[Any]:
        """The memory itself: a view of it must not outlive it. Raises EngineError when it is closed."""
        _ = self.handle
        return self._array


class Event(_Made):
    """A point in a stream's work."""

    def __init__(self, device: Device, timing: bool) -> None:
        flags = device._driver.CUevent_flags
        flag = flags.CU_EVENT_DEFAULT if timing else flags.CU_EVENT_DISABLE_TIMING
        super().__init__(device, "cuEventDestroy", device.call("cuEventCreate", int(flag)))

    def synchronize(self) -> None:
        """Wait for the work before it. Raises EngineError, also where that work failed."""
        self.device.call("cuEventSynchronize", self._handle)

    def milliseconds_since(self, earlier: "Event") -> float:
        """Time on the device between two events made with timing, both synchronised."""
        return float(self.device.call("cuEventElapsedTime", earlier._handle, self._handle))


class Kernel(_Made):
    """A kernel of a module."""

    def __init__(self, device: Device, image: bytes, name: str) -> None:
        super().__init__(device, "cuModuleUnload", device.call("cuModuleLoadData", image + b"\0"))
        self._function = device.call("cuModuleGetFunction", self._handle, name.encode())


class Graph(_Made):
    """Work captured from a stream, ready to be launched again and again."""

    def __init__(self, device: Device, graph: Any) -> None:
        try:
            executable = device.call("cuGraphInstantiate", graph, 0)
        finally:
            device.call("cuGraphDestroy", graph)
        super().__init__(device, "cuGraphExecDestroy", executable)


class Stream(_Made):
    """Work in order, beside that of other streams. Every method but `synchronize` and `capture` returns at once."""

    def __init__(self, device: Device) -> None:
        flag = int(device._driver.CUstream_flags.CU_STREAM_NON_BLOCKING)
        super().__init__(device, "cuStreamDestroy", device.call("cuStreamCreate", flag))

    def copy_in(self, target: DeviceBuffer, source: PinnedArray, nbytes: int) -> None:
        """The first `nbytes` bytes, from the host."""
        self.device.call("cuMemcpyHtoDAsync", target.handle, source.handle, _fits(nbytes, target, source), self._handle)

    def copy_out(self, target: PinnedArray, source: DeviceBuffer, nbytes: int) -> None:
        """The first `nbytes` bytes, to the host."""
        self.device.call("cuMemcpyDtoHAsync", target.handle, source.handle, _fits(nbytes, target, source), self._handle)

    def copy(self, target: DeviceBuffer, source: DeviceBuffer, nbytes: int) -> None:
        """The first `nbytes` bytes, on the device."""
        self.device.call("cuMemcpyDtoDAsync", target.handle, source.handle, _fits(nbytes, target, source), self._handle)

    def record(self, event: Event) -> None:
        """Place an event behind the work given so far."""
        self.device.call("cuEventRecord", event._handle, self._handle)

    def wait(self, event: Event) -> None:
        """What is given from now on starts after the event, which another stream has recorded."""
        self.device.call("cuStreamWaitEvent", self._handle, event._handle, 0)

    def launch_kernel(self, kernel: Kernel, grid: Triple, block: Triple, *args: "DeviceBuffer | int") -> None:
        """Launch a kernel on buffers and int32 numbers."""
        values = tuple(arg.handle if isinstance(arg, DeviceBuffer) else arg for arg in args)
        types = tuple(ctypes.c_void_p if isinstance(arg, DeviceBuffer) else ctypes.c_int32 for arg in args)
        self.device.call("cuLaunchKernel", kernel._function, *grid, *block, 0, self._handle, (values, types), 0)

    def launch_graph(self, graph: Graph) -> None:
        """Do captured work again."""
        self.device.call("cuGraphLaunch", graph._handle, self._handle)

    def capture(self, work: Callable[[], None]) -> Graph:
        """What `work` gives to this stream, as a graph; none of it is done now. Raises what `work` raises."""
        mode = self.device._driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        self.device.call("cuStreamBeginCapture", self._handle, mode)
        try:
            work()
        except BaseException:
            with suppress(EngineError):  # a call that may not be captured has ended the capture already
                self.device.call("cuGraphDestroy", self.device.call("cuStreamEndCapture", self._handle))
            raise
        return Graph(self.device, self.device.call("cuStreamEndCapture", self._handle))

    def synchronize(self) -> None:
        """Wait for all its work. Raises EngineError, also where that work failed."""
        self.device.call("cuStreamSynchronize", self._handle)


def _fits(nbytes: int, *memory: DeviceBuffer | PinnedArray) -> int:
    if nbytes > min(each.nbytes for each in memory):
        raise EngineError(f"a copy of {nbytes} bytes does not fit {' and '.join(str(each.nbytes) for each in memory)}")
    return nbytes


def _driver() -> ModuleType:
    try:
        from cuda.bindings import driver
    except ImportError as error:
        words = f"the package cuda-bindings is not installed ({error}): pip install 'jokr-rt[tensorrt]'"
        raise EngineMissingError(words) from None
    return driver


def _call(driver: ModuleType, function: str, *args: Any) -> Any:
    status, *results = getattr(driver, function)(*args)
    if status != driver.CUresult.CUDA_SUCCESS:
        raise EngineError(f"{function} failed: {status.name}")
    return tuple(results) if len(results) > 1 else results[0] if results else None
