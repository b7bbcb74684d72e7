"""ONNX Runtime on a GPU, without one: real sessions on the processor, behind the double of the CUDA driver."""

import sys
from collections import deque
from collections.abc import Callable, Iterator
from fractions import Fraction
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

import jokr_rt.engines.onnxruntime_cuda as module
import jokr_rt.engines.onnxruntime_tensorrt as provider
from jokr_rt.bundle import Bundle
from jokr_rt.engines import IN_FLIGHT, DeviceEngine, load_engine
from jokr_rt.engines.onnxruntime_cuda import OnnxRuntimeCudaEngine
from jokr_rt.errors import EngineError, EngineMissingError, UsageError
from jokr_rt.frame import Frame
from jokr_rt.parity import require_parity, verify_bundle
from jokr_rt.retarget import Retargeter
from tests.cuda_double import CudaDouble, install
from tests.tiny import TINY, creature_frames


class LateSession:
    """A real session on the processor, whose bound runs are work of a stream, done when someone waits."""

    def __init__(self, path: Path, stream: int, double: CudaDouble) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self.real = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.stream, self.double = stream, double
        self.graph_ids: list[str] = []

    def __getattr__(self, name: str) -> object:
        return getattr(self.real, name)

    def run_with_iobinding(self, binding: ort.IOBinding, options: ort.RunOptions) -> None:
        self.graph_ids.append(options.get_run_config_entry("gpu_graph_id"))
        self.double.enqueue(self.stream, "session", lambda: self.real.run_with_iobinding(binding))


@pytest.fixture
def double(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> CudaDouble:
    """Each seed is another order of what CUDA may reorder. ONNX Runtime's CUDA provider is the processor's."""
    double = install(monkeypatch, getattr(request, "param", 0))
    monkeypatch.setattr(module, "PROVIDER", "CPUExecutionProvider")
    monkeypatch.setattr(module, "MEMORY", "cpu")
    monkeypatch.setattr(module, "_session", lambda path, stream, missing: LateSession(path, stream, double))
    return double


@pytest.fixture
def engine(double: CudaDouble, bundle: Bundle) -> Iterator[OnnxRuntimeCudaEngine]:
    engine = OnnxRuntimeCudaEngine(bundle, "fp32")
    yield engine
    engine.close()
    assert double.alive() == []


def expected(bundle: Bundle, direction: str, frames: np.ndarray) -> dict[str, np.ndarray]:
    """Stage by stage through the ordinary engine."""
    plain = load_engine("onnxruntime", bundle)
    seen = plain.run("extractor", {"frame": frames})
    warped = plain.run(f"stn-{direction}", {"keypoints": seen["keypoints"]})["warped"]
    looks = np.repeat(bundle.appearance({"a2b": "b", "b2a": "a"}[direction]), len(frames), axis=0)
    return seen | plain.run("generator", {"warped": warped, "appearance": looks})


def assert_same(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    assert set(found) == {"image", "keypoints", "confidence"}
    for name, array in found.items():
        np.testing.assert_allclose(array.astype(float), wanted[name].astype(float), atol=1e-6, err_msg=name)


@pytest.mark.parametrize("double", range(4), indirect=True)
def test_frames_in_flight_are_what_the_stages_compute(engine: OnnxRuntimeCudaEngine, bundle: Bundle) -> None:
    """Two in flight, batches of two sizes, both directions beside each other."""
    assert isinstance(engine, DeviceEngine)
    assert (engine.name, engine.precision) == ("onnxruntime-cuda", "fp32")
    frames = creature_frames(7, TINY.size, seed=4)
    queues = {name: engine.frames(name, bundle.appearance(target)) for name, target in (("a2b", "b"), ("b2a", "a"))}
    wanted = {name: expected(bundle, name, frames) for name in queues}
    assert not np.array_equal(wanted["a2b"]["image"], wanted["b2a"]["image"])
    begun: deque[slice] = deque()
    for batch in (slice(0, 1), slice(1, 2), slice(2, 5), slice(5, 6), slice(6, 7), None):
        if batch is not None:
            begun.append(batch)
            for queue in queues.values():
                queue.enqueue(frames[batch])
        if len(begun) == IN_FLIGHT or batch is None:
            oldest = begun.popleft()
            for name, queue in queues.items():
                assert_same(queue.collect(), {key: array[oldest] for key, array in wanted[name].items()})
    for queue in queues.values():
        queue.close()


def test_each_batch_of_a_queue_has_addresses_and_a_graph_of_its_own(
    engine: OnnxRuntimeCudaEngine, bundle: Bundle
) -> None:
    frames = creature_frames(3, TINY.size, seed=4)
    for direction in ("a2b", "b2a"):
        queue = engine.frames(direction, bundle.appearance("a"))
        for batch in (1, 2, 1, 1):
            queue.enqueue(frames[:batch])
            queue.collect()
        queue.close()
    ids = {name: session.graph_ids for name, session in engine.sessions.items()}  # type: ignore[attr-defined]
    assert ids["stn-a2b"] == ["1", "2", "1", "1"]
    assert ids["stn-b2a"] == ["3", "4", "3", "3"]
    assert ids["extractor"] == ids["generator"] == ids["stn-a2b"] + ids["stn-b2a"]


def test_runs_of_one_graph_capture_nothing(engine: OnnxRuntimeCudaEngine, bundle: Bundle) -> None:
    frames = creature_frames(2, TINY.size, seed=4)
    seen = engine.run("extractor", {"frame": frames})
    wanted = expected(bundle, "a2b", frames)
    for name in ("keypoints", "confidence"):
        np.testing.assert_allclose(seen[name], wanted[name], atol=1e-6)
    assert engine.sessions["extractor"].graph_ids == []  # type: ignore[attr-defined]
    with pytest.raises(EngineError, match=r"extractor: frame is uint8 \(64, 64, 3\) instead of"):
        engine.run("extractor", {"frame": frames[0]})


def test_a_retargeter_keeps_whole_frames_on_the_device(double: CudaDouble, bundle: Bundle) -> None:
    engine = OnnxRuntimeCudaEngine(bundle, "fp32")
    plain = Retargeter(bundle, "a2b", load_engine("onnxruntime", bundle))
    frames = [Frame(rgb, index, Fraction(1, 10)) for index, rgb in enumerate(creature_frames(4, TINY.size, seed=2))]
    with Retargeter(bundle, "a2b", engine, "throughput") as retargeter:
        found = list(retargeter.retarget_all((frame, None) for frame in frames))
    engine.close()
    for frame, result in zip(frames, found, strict=True):
        wanted = plain.retarget(frame)
        np.testing.assert_allclose(result.keypoints, wanted.keypoints, atol=1e-6)
        assert np.abs(result.image.rgb.astype(int) - wanted.image.rgb).max() <= 1
        assert result.image.pts == frame.pts
    assert double.alive() == []


def test_it_is_closed_once_and_for_all(engine: OnnxRuntimeCudaEngine, bundle: Bundle) -> None:
    engine.close()
    engine.close()
    for use in (
        lambda: engine.run("extractor", {"frame": creature_frames(1, TINY.size, seed=0)}),
        lambda: engine.frames("a2b", bundle.appearance("b")),
    ):
        with pytest.raises(EngineError, match="onnxruntime-cuda: used after it was closed"):
            use()


def test_a_graph_that_cannot_be_loaded_leaves_nothing_on_the_device(
    double: CudaDouble, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def session(path: Path, stream: int, missing: str) -> LateSession:
        if path.name == "generator.onnx":
            raise EngineError("no")
        return LateSession(path, stream, double)

    monkeypatch.setattr(module, "_session", session)
    with pytest.raises(EngineError, match="no"):
        OnnxRuntimeCudaEngine(bundle, "fp32")
    assert double.alive() == []


def one_line(use: Callable[[], object], kind: type[Exception]) -> str:
    with pytest.raises(kind) as caught:
        use()
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_an_onnxruntime_without_cuda_is_refused(bundle: Bundle) -> None:
    message = one_line(lambda: load_engine("onnxruntime-cuda", bundle), EngineMissingError)
    assert message == (
        f"engine onnxruntime-cuda: the installed onnxruntime {ort.__version__} has no CUDA provider; "
        "pip uninstall onnxruntime, then pip install 'jokr-rt[gpu]'"
    )


def test_without_onnxruntime_it_says_how_to_get_it(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    message = one_line(lambda: load_engine("onnxruntime-cuda", bundle), EngineMissingError)
    assert message == "engine onnxruntime-cuda is not installed: pip install 'jokr-rt[gpu]'"


def test_a_provider_is_there_but_no_gpu(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    providers = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(ort, "get_available_providers", lambda: providers)
    double = install(monkeypatch)
    double.fail("cuInit", "CUDA_ERROR_NO_DEVICE")
    assert "no NVIDIA GPU 0 here" in one_line(lambda: load_engine("onnxruntime-cuda", bundle), EngineMissingError)


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_a_silent_fall_back_to_the_processor_is_refused(bundle: Bundle, capfd: pytest.CaptureFixture[str]) -> None:
    """A real session, of an ONNX Runtime that has to do without the CUDA provider."""
    path = bundle.graph_path("stn-a2b")
    plain = ort.InferenceSession(path, providers=["CUDAExecutionProvider"])
    assert plain.get_providers() == ["CPUExecutionProvider"]  # what it does, left alone
    message = one_line(lambda: module._session(path, 0, "libcudnn.so.9: not found"), EngineError)
    assert message.startswith("onnxruntime-cuda: ONNX Runtime cannot load its CUDA provider (libcudnn.so.9: not found)")
    assert message.endswith("pip install 'jokr-rt[gpu]'")
    assert capfd.readouterr().out == ""


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_an_operator_without_a_kernel_is_refused_by_name(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_provider_loads", lambda path, stream: True)
    message = one_line(lambda: module._session(bundle.graph_path("stn-a2b"), 0, ""), EngineError)
    assert "stn-a2b.onnx cannot be loaded: " in message
    assert "fallback to CPU EP has been explicitly disabled" in message


@pytest.mark.parametrize(
    ("linked", "installed", "words"),
    [
        (None, "11.4.0", "the installed onnxruntime has no TensorRT provider; use --engine tensorrt"),
        (b"..libnvinfer.so.10\0", None, r"TensorRT 10 \(libnvinfer.so.10\), which is not installed; use --engine"),
        (b"..libnvinfer.so.10\0", "11.4.0", "and cannot use the installed 11.4.0; use --engine tensorrt"),
        (b"..libnvinfer.so.10\0", "10.13.2", "runs the sampling operator without its plugin; use --engine tensorrt"),
    ],
)
def test_its_tensorrt_provider_is_explained(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, linked: bytes | None, installed: str, words: str
) -> None:
    capi = tmp_path / "onnxruntime" / "capi"
    capi.mkdir(parents=True)
    (capi.parent / "__init__.py").touch()
    if linked:
        (capi / "libonnxruntime_providers_tensorrt.so").write_bytes(b"\x7fELF" + linked)

    def version(name: str) -> str:
        assert name == "tensorrt"
        if installed is None:
            raise PackageNotFoundError(name)
        return installed

    monkeypatch.setattr(provider, "version", version)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "onnxruntime")
    with pytest.raises(UsageError, match=f"^engine onnxruntime-tensorrt: .*{words}"):
        load_engine("onnxruntime-tensorrt", bundle)


def test_verifying_frees_the_device(double: CudaDouble, bundle: Bundle) -> None:
    figures = verify_bundle(bundle, "onnxruntime-cuda")
    require_parity(figures)
    assert {(figure.engine, figure.precision) for figure in figures} == {("onnxruntime-cuda", "fp32")}
    assert double.alive() == []
