"""The thin layer over cuda-bindings, on a double of the driver: bytes arrive, all is freed, errors name their call."""

import gc
import subprocess
import sys

import numpy as np
import pytest

from jokr_rt.engines.cuda import Device
from jokr_rt.errors import EngineError, EngineMissingError
from tests.cuda_double import CudaDouble
from tests.process import ROOT


def test_what_the_device_says(cuda_double: CudaDouble) -> None:
    cuda_double.name, cuda_double.capability, cuda_double.version = "NVIDIA L4", (8, 9), 12080
    with Device() as device:
        assert (device.name, device.compute_capability, device.driver_version) == ("NVIDIA L4", (8, 9), "12.8")
        assert device.memory == (1 << 30, 1 << 30)
        buffer = device.buffer(1000)
        assert device.memory == ((1 << 30) - 1000, 1 << 30)
        buffer.close()
        assert device.memory == (1 << 30, 1 << 30)
    assert cuda_double.alive() == []


def test_bytes_go_there_and_back(cuda_double: CudaDouble) -> None:
    with Device() as device:
        stream, source, target = device.stream(), device.pinned((3, 5), "float32"), device.pinned((3, 5), "float32")
        near, far = device.buffer(source.nbytes), device.buffer(source.nbytes)
        source.array[:] = np.arange(15).reshape(3, 5)
        target.array[:] = -1
        stream.copy_in(near, source, 60)
        stream.copy(far, near, 60)
        stream.copy_out(target, far, 40)
        assert (target.array == -1).all()  # nothing is done before someone waits
        stream.synchronize()
        assert target.array.dtype == np.float32
        assert target.array.ravel().tolist() == [*range(10), *[-1] * 5]
        with pytest.raises(EngineError, match="a copy of 61 bytes does not fit 60 and 60"):
            stream.copy_in(near, source, 61)


def test_a_stream_waits_for_what_another_recorded(cuda_double: CudaDouble) -> None:
    for seed in range(8):
        cuda_double.random.seed(seed)
        with Device() as device:
            first, second, event = device.stream(), device.stream(), device.event()
            source, target, buffer = device.pinned((4,), "int32"), device.pinned((4,), "int32"), device.buffer(16)
            source.array[:] = 1, 2, 3, 4
            first.copy_in(buffer, source, 16)
            first.record(event)
            second.wait(event)
            second.copy_out(target, buffer, 16)
            second.synchronize()
            assert target.array.tolist() == [1, 2, 3, 4]


def test_time_between_events(cuda_double: CudaDouble) -> None:
    with Device() as device:
        stream, start, end = device.stream(), device.event(timing=True), device.event(timing=True)
        buffer, host = device.buffer(8), device.pinned((8,), "uint8")
        stream.record(start)
        for _ in range(3):
            stream.copy_in(buffer, host, 8)
        stream.record(end)
        end.synchronize()
        assert end.milliseconds_since(start) == 3  # the double does an operation a millisecond
        untimed = device.event()
        with pytest.raises(EngineError, match="cuEventElapsedTime failed: CUDA_ERROR_INVALID_HANDLE"):
            end.milliseconds_since(untimed)


def test_captured_work_is_done_at_each_launch_and_not_before(cuda_double: CudaDouble) -> None:
    with Device() as device:
        stream, host, buffer = device.stream(), device.pinned((2,), "uint8"), device.buffer(2)
        result = device.pinned((2,), "uint8")

        def work() -> None:
            stream.copy_in(buffer, host, 2)
            stream.copy_out(result, buffer, 2)

        result.array[:] = 0
        graph = stream.capture(work)
        stream.synchronize()
        assert result.array.tolist() == [0, 0]
        for values in ([1, 2], [3, 4]):
            host.array[:] = values
            stream.launch_graph(graph)
            stream.synchronize()
            assert result.array.tolist() == values
        assert "graph" not in cuda_double.alive()  # only the executable one is kept
    assert cuda_double.alive() == []


def test_a_capture_that_fails_leaves_the_stream_usable(cuda_double: CudaDouble) -> None:
    with Device() as device:
        stream = device.stream()
        with pytest.raises(ZeroDivisionError):
            stream.capture(lambda: print(1 / 0))
        with pytest.raises(EngineError, match="cuStreamSynchronize failed: CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED"):
            stream.capture(stream.synchronize)
        cuda_double.fail("cuGraphInstantiate", "CUDA_ERROR_OUT_OF_MEMORY")
        with pytest.raises(EngineError, match="cuGraphInstantiate failed: CUDA_ERROR_OUT_OF_MEMORY"):
            stream.capture(lambda: None)
        stream.synchronize()
    assert cuda_double.alive() == []


def test_kernels_are_launched_with_pointers_and_numbers(cuda_double: CudaDouble) -> None:
    with Device() as device:
        kernel = device.kernel(b".version 7.0 .entry scale", "scale")
        buffer, stream = device.buffer(64), device.stream()
        seen: list[tuple[object, ...]] = []
        cuda_double.kernels["scale"] = lambda *launch: seen.append(launch)
        stream.launch_kernel(kernel, (4, 2, 1), (32, 8, 1), buffer, 7)
        assert seen == []
        stream.synchronize()
        assert seen == [((4, 2, 1), (32, 8, 1), buffer.handle, 7)]
        with pytest.raises(EngineError, match="cuModuleGetFunction failed: CUDA_ERROR_NOT_FOUND"):
            device.kernel(b".entry scale", "scales")
    assert cuda_double.alive() == []


@pytest.mark.parametrize(
    ("function", "error"),
    [
        ("cuMemAlloc", "CUDA_ERROR_OUT_OF_MEMORY"),
        ("cuMemHostAlloc", "CUDA_ERROR_OUT_OF_MEMORY"),
        ("cuStreamCreate", "CUDA_ERROR_UNKNOWN"),
        ("cuMemcpyHtoDAsync", "CUDA_ERROR_ILLEGAL_ADDRESS"),
        ("cuStreamSynchronize", "CUDA_ERROR_LAUNCH_FAILED"),
    ],
)
def test_an_error_names_the_call_and_leaks_nothing(cuda_double: CudaDouble, function: str, error: str) -> None:
    cuda_double.fail(function, error)

    def use(device: Device) -> None:
        buffer, host, stream = device.buffer(8), device.pinned((8,), "uint8"), device.stream()
        stream.copy_in(buffer, host, 8)
        stream.synchronize()

    with Device() as device, pytest.raises(EngineError) as caught:
        use(device)
    assert str(caught.value) == f"{function} failed: {error}"
    assert cuda_double.alive() == []


def test_close_frees_everything_once(cuda_double: CudaDouble) -> None:
    device = Device()
    made = [device.buffer(8), device.pinned((8,), "uint8"), device.stream(), device.event(), device.kernel(b"k", "k")]
    assert cuda_double.alive() == ["context", "device", "event", "host", "module", "stream"]
    made[0].close()
    made[0].close()
    device.close()
    device.close()
    made[2].close()
    assert cuda_double.alive() == []
    for use in (device.stream, lambda: device.buffer(8), lambda: device.name):
        with pytest.raises(EngineError, match="the device is closed"):
            use()
    with pytest.raises(EngineError, match="pinnedarray: used after it was closed"):
        _ = made[1].array  # its memory is gone: to touch it would end the process
    with pytest.raises(EngineError, match="devicebuffer: used after it was closed"):
        _ = made[0].handle


def test_what_is_begun_and_fails_is_undone(cuda_double: CudaDouble) -> None:
    with Device() as device:
        kept = device.buffer(8)
        with pytest.raises(ZeroDivisionError), device.all_or_nothing():
            device.buffer(8), device.stream(), device.pinned((8,), "uint8").close(), 1 / 0
        assert cuda_double.alive() == ["context", "device"]
        with device.all_or_nothing():
            device.stream()
        assert cuda_double.alive() == ["context", "device", "stream"]
        assert kept.handle


def test_close_frees_what_it_can_after_an_error_that_sticks(cuda_double: CudaDouble) -> None:
    device = Device()
    device.buffer(8)
    device.stream()
    cuda_double.fail("cuCtxSynchronize", "CUDA_ERROR_ILLEGAL_ADDRESS")
    cuda_double.fail("cuStreamDestroy", "CUDA_ERROR_ILLEGAL_ADDRESS")
    device.close()
    assert cuda_double.alive() == ["stream"]  # it goes with the context


def test_a_device_that_is_dropped_is_closed(cuda_double: CudaDouble) -> None:
    device = Device()
    device.buffer(8)
    del device
    gc.collect()
    assert cuda_double.alive() == []


@pytest.mark.parametrize("error", ["CUDA_ERROR_NO_DEVICE", "CUDA_ERROR_STUB_LIBRARY"])
def test_no_gpu(cuda_double: CudaDouble, error: str) -> None:
    cuda_double.fail("cuInit", error)
    with pytest.raises(EngineMissingError) as caught:
        Device()
    assert str(caught.value) == f"no NVIDIA GPU 0 here (cuInit failed: {error}); see nvidia-smi"
    with pytest.raises(
        EngineMissingError, match=r"no NVIDIA GPU 3 here \(cuDeviceGet failed: CUDA_ERROR_INVALID_DEVICE"
    ):
        Device(3)
    assert cuda_double.alive() == []


def test_a_driver_that_fails_otherwise_is_no_missing_gpu(cuda_double: CudaDouble) -> None:
    cuda_double.fail("cuInit", "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH")
    with pytest.raises(EngineError, match="cuInit failed: CUDA_ERROR_SYSTEM_DRIVER_MISMATCH") as caught:
        Device()
    assert not isinstance(caught.value, EngineMissingError)


def words(prelude: str) -> str:
    """Of the error that opening a device raises, in a process of its own with the real cuda-bindings."""
    code = f"""{prelude}
from jokr_rt.engines.cuda import Device
from jokr_rt.errors import EngineMissingError
try:
    Device()
except EngineMissingError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout


def test_no_driver() -> None:
    """The real bindings look for libcuda, and find none; on a machine that has one they are told so."""
    hide = """
from cuda.bindings import driver
def find_none(flags):
    raise RuntimeError("Failed to dlopen libcuda.so.1\\nlibcuda.so.1: no such file")
try:
    driver.cuInit(0)
    driver.cuInit = find_none
except RuntimeError:
    pass
"""
    said = words(hide)
    assert said.startswith("no NVIDIA driver here (")
    assert said.endswith("; install it from nvidia.com/drivers\n")
    assert said.count("\n") == 1


def test_no_bindings() -> None:
    said = words("import sys\nsys.modules['cuda'] = None")
    assert said.startswith("the package cuda-bindings is not installed (")
    assert said.endswith("): pip install 'jokr-rt[tensorrt]'\n")
