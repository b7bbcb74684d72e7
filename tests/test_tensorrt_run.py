"""TensorRT's runtime, on a double of TensorRT that computes with ONNX Runtime, and one of CUDA that does things late.

A frame through the whole pipeline is the frame that ONNX Runtime draws, in whatever order CUDA does what it may;
nothing is lost, out of order or leaked.
"""

import gc
import shutil
import signal
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from jokr_rt import Frame, Retargeter, read_video
from jokr_rt.bundle import Arrays, open_bundle
from jokr_rt.engines import IN_FLIGHT, MODES, DeviceEngine, Engine, Monitor, engine_module, load_engine
from jokr_rt.engines.tensorrt_cache import BuildOptions
from jokr_rt.errors import EngineError, InputError, JokrError
from jokr_rt.keypoints import OneEuroFilter
from jokr_rt.stream import retarget_stream
from tests import clips, cuda_double, tensorrt_double
from tests.cuda_double import CudaDouble
from tests.tensorrt_double import Double
from tests.tiny import TINY, creature_frames

FRAMES = [Frame(rgb, index, Fraction(1, 25)) for index, rgb in enumerate(creature_frames(7, TINY.size, seed=3))]
MAX_BATCH = 3
TENSORRT_OBJECTS = ("IExecutionContext", "ICudaEngine", "Runtime")

pytestmark = pytest.mark.usefixtures("gpu")


@pytest.fixture(scope="module")
def built_bundle(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle whose plans are built, with the plugin, for up to `MAX_BATCH` frames. Not to be changed."""
    path = Path(shutil.copytree(tiny_bundle, tmp_path_factory.mktemp("built") / "built.jokr"))
    with pytest.MonkeyPatch.context() as patch:
        cuda_double.install(patch)
        tensorrt_double.install(patch)
        options = BuildOptions(max_batch=MAX_BATCH)
        engine_module("tensorrt").build_plans(open_bundle(path), "fp32", options, Monitor())
    return path


@pytest.fixture(scope="module")
def reference(tiny_bundle: Path) -> Engine:
    return load_engine("onnxruntime", open_bundle(tiny_bundle))


@pytest.fixture
def engine(built_bundle: Path, gpu: CudaDouble) -> Iterator[DeviceEngine]:
    """Closed at the end, and then nothing may be left."""
    engine = load_engine("tensorrt", open_bundle(built_bundle))
    assert isinstance(engine, DeviceEngine)
    yield engine
    engine.close()
    assert gpu.alive() == []


def expected(reference: Engine, root: Path, frames: list[Frame], direction: str = "a2b") -> list[NDArray[np.uint8]]:
    retargeter = Retargeter(open_bundle(root), direction, reference)
    return [retargeter(frame).rgb for frame in frames]


def batch(*indices: int) -> NDArray[np.uint8]:
    return np.stack([FRAMES[index].rgb for index in indices])


def assert_same(found: list[NDArray[np.uint8]], wanted: list[NDArray[np.uint8]]) -> None:
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        assert np.array_equal(one, other)
    assert len({image.tobytes() for image in wanted}) == len(wanted)  # they can be told apart


@pytest.mark.parametrize("direction", ["a2b", "b2a"])
def test_frames_are_what_onnxruntime_draws(
    engine: DeviceEngine, reference: Engine, built_bundle: Path, gpu: CudaDouble, direction: str
) -> None:
    """One at a time and as a stream, for many orders in which a GPU may do it."""
    bundle = open_bundle(built_bundle)
    wanted = expected(reference, built_bundle, FRAMES, direction)
    for seed in range(6):
        gpu.random.seed(seed)
        retargeter = Retargeter(bundle, direction, engine, MODES[seed % 2])
        assert_same([result.image.rgb for result in retargeter.retarget_all((frame, None) for frame in FRAMES)], wanted)
        assert_same([retargeter(frame).rgb for frame in FRAMES[:2]], wanted[:2])
        retargeter.close()


def test_all_that_is_known_of_a_frame(engine: DeviceEngine, reference: Engine, built_bundle: Path) -> None:
    ours, theirs = (Retargeter(open_bundle(built_bundle), "a2b", each, "throughput") for each in (engine, reference))
    mask = np.zeros((TINY.size, TINY.size), bool)
    mask[:, 20:] = True
    pairs = [(frame, mask) for frame in FRAMES[:3]]
    for (frame, _), result in zip(pairs, ours.retarget_all(pairs), strict=True):
        wanted = theirs.retarget(frame, mask)
        assert np.array_equal(result.source.rgb, wanted.source.rgb)
        assert np.array_equal(result.image.rgb, wanted.image.rgb)
        assert np.array_equal(result.keypoints, wanted.keypoints)
        assert np.array_equal(result.confidence, wanted.confidence)
        assert (result.image.pts, result.image.time_base) == (frame.pts, frame.time_base)
    ours.close()


def test_graphs_run_alone_at_any_batch_size(engine: DeviceEngine, reference: Engine, built_bundle: Path) -> None:
    samples = open_bundle(built_bundle).samples()
    for graph, signature in open_bundle(built_bundle).signatures.items():
        for size in (1, MAX_BATCH, 2 * MAX_BATCH + 1, 1):
            inputs = {
                spec.name: np.resize(samples[graph][spec.name], (size, *spec.shape[1:])) for spec in signature.inputs
            }
            found, wanted = engine.run(graph, inputs), reference.run(graph, inputs)
            assert list(found) == list(wanted)
            for name in wanted:
                assert found[name].dtype == wanted[name].dtype
                np.testing.assert_allclose(found[name], wanted[name], rtol=0, atol=1e-6)


def test_results_are_the_callers(engine: DeviceEngine) -> None:
    first = engine.run("extractor", {"frame": batch(0)})
    queue = engine.frames("a2b", np.ones((1, 3, 32, 32), np.float32))
    queue.enqueue(batch(0))
    whole = queue.collect()
    before = [(result, name, array.copy()) for result in (first, whole) for name, array in result.items()]
    engine.run("extractor", {"frame": batch(6)})
    for index in (5, 6, 4):
        queue.enqueue(batch(index))
        queue.collect()
    queue.close()
    assert all(np.array_equal(result[name], array) for result, name, array in before)


def test_the_three_graphs_are_one_cuda_graph_after_one_warm_up(
    engine: DeviceEngine, gpu: CudaDouble, tensorrt_double: Double, built_bundle: Path
) -> None:
    queue = engine.frames("a2b", open_bundle(built_bundle).appearance("b"))
    tensorrt_double.calls.clear()
    gpu.calls.clear()
    for index in range(4):
        queue.enqueue(batch(index))
        queue.collect()
    assert [gpu.calls.count(f"cu{name}") for name in ("StreamBeginCapture", "GraphInstantiate", "GraphLaunch")] == [
        1,
        1,
        4,
    ]
    assert len(tensorrt_double.arguments("IExecutionContext.execute_async_v3")) == 6  # three to warm up, three captured
    assert tensorrt_double.arguments("IExecutionContext.set_tensor_address") == []  # that was before
    assert gpu.calls.count("cuMemAlloc") == gpu.calls.count("cuMemHostAlloc") == 0
    streams = {call["stream_handle"] for call in tensorrt_double.arguments("IExecutionContext.execute_async_v3")}
    assert len(streams) == 1
    assert 0 not in streams
    queue.close()


def test_another_batch_size_captures_anew(
    engine: DeviceEngine, reference: Engine, gpu: CudaDouble, built_bundle: Path
) -> None:
    """And what was in flight before it comes out as it went in."""
    batches = [(0,), (1, 2), (3, 4, 5), (6, 0, 1), (2,)]
    wanted = expected(reference, built_bundle, FRAMES)
    for seed in range(6):
        gpu.random.seed(seed)
        gpu.calls.clear()
        queue = engine.frames("a2b", open_bundle(built_bundle).appearance("b"))
        found: list[Arrays] = []
        for index, indices in enumerate(batches):
            queue.enqueue(batch(*indices))
            if index:
                found.append(queue.collect())
        found.append(queue.collect())
        for indices, result in zip(batches, found, strict=True):
            assert_same(list(result["image"]), [wanted[index] for index in indices])
            assert result["keypoints"].shape == (len(indices), 10, 2)
        assert gpu.calls.count("cuGraphInstantiate") == gpu.calls.count("cuGraphExecDestroy") + 1 == 4
        queue.close()
        assert gpu.calls.count("cuGraphExecDestroy") == 4


def test_neighbours_are_copied_and_computed_at_once(engine: DeviceEngine, gpu: CudaDouble, built_bundle: Path) -> None:
    """Each stream is let run as far as it can without the others: nobody waits for more than for its own data."""
    queue = engine.frames("a2b", open_bundle(built_bundle).appearance("b"))
    queue.enqueue(batch(0))
    queue.collect()  # with the warm-up behind it
    gpu.done.clear()
    queue.enqueue(batch(1))
    queue.enqueue(batch(2))
    assert gpu.done == []  # to enqueue waits for nothing
    copying_in, computing, copying_out = (stream.handle for stream in streams_of(queue))
    gpu.run(computing)
    gpu.run(copying_out)
    assert gpu.done == []
    gpu.run(copying_in)
    assert [name for _, name in gpu.done] == ["HtoD 12288"] * 2  # the second before the first was computed
    gpu.run(computing)
    assert [name for _, name in gpu.done[2:]].count("graph TensorRT") == 6  # the second before the first was copied out
    assert not any(name.startswith("DtoH") for _, name in gpu.done)
    gpu.run(copying_out)
    assert [name.split()[0] for handle, name in gpu.done if handle == copying_out] == ["DtoH"] * 6
    assert len({copying_in, computing, copying_out}) == 3
    queue.collect()
    queue.collect()
    queue.close()


def streams_of(queue: object) -> tuple:  # type: ignore[type-arg]
    return queue._copying_in, queue._chain.stream, queue._copying_out  # type: ignore[attr-defined]


def test_what_does_not_fit_a_queue(engine: DeviceEngine, built_bundle: Path) -> None:
    queue = engine.frames("a2b", open_bundle(built_bundle).appearance("b"))

    def refusal(action: object, *args: object) -> str:
        with pytest.raises(EngineError) as caught:
            action(*args)  # type: ignore[operator]
        return str(caught.value)

    assert refusal(queue.collect) == "tensorrt: no frame is in flight"
    assert refusal(queue.enqueue, batch(0)[:, :32]).startswith("tensorrt: frame is uint8 (1, 32, 64, 3) instead of")
    assert refusal(queue.enqueue, batch(0).astype(np.float32)).startswith("tensorrt: frame is float32")
    assert refusal(queue.enqueue, batch(0, 1, 2, 3)) == "tensorrt: a batch of 4 frames, and it takes 1 to 3"
    assert refusal(queue.enqueue, batch(0)[:0]) == "tensorrt: a batch of 0 frames, and it takes 1 to 3"
    for index in range(IN_FLIGHT):
        queue.enqueue(batch(index))
    assert refusal(queue.enqueue, batch(2)) == "tensorrt: 2 frames are in flight already; collect one first"
    queue.close()
    queue.close()
    assert refusal(queue.collect) == "tensorrt: no frame is in flight"
    assert refusal(queue.enqueue, batch(0)) == "tensorrt: the queue is closed"


def stream_until(engine: DeviceEngine, root: Path, pairs: Iterator[tuple[Frame, None]]) -> tuple[list, Exception]:  # type: ignore[type-arg]
    """The images that came out, and the error that ended it."""
    found: list[NDArray[np.uint8]] = []
    results = Retargeter(open_bundle(root), engine=engine, mode="throughput").retarget_all(pairs)
    with pytest.raises(JokrError) as caught:
        found.extend(result.image.rgb for result in results)
    return found, caught.value


def test_what_was_begun_comes_out_before_the_sources_error(
    engine: DeviceEngine, reference: Engine, built_bundle: Path
) -> None:
    def source(count: int) -> Iterator[tuple[Frame, None]]:
        yield from ((frame, None) for frame in FRAMES[:count])
        raise InputError("clip.mp4: damaged")

    for count in range(5):
        found, error = stream_until(engine, built_bundle, source(count))
        assert str(error) == "clip.mp4: damaged"
        assert_same(found, expected(reference, built_bundle, FRAMES[:count]))


@pytest.mark.parametrize(
    ("function", "calls_before", "error", "frames"),
    [
        ("cuGraphLaunch", 3, "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES", 3),  # frames 0 to 2 were launched, and are collected
        ("cuMemcpyHtoDAsync", 4, "CUDA_ERROR_INVALID_VALUE", 3),  # the appearance was the first copy
        (
            "cuEventSynchronize",
            2,
            "CUDA_ERROR_ILLEGAL_ADDRESS",
            2,
        ),  # frame 2 itself is lost, and 3 must not take its place
    ],
)
def test_an_error_in_the_middle_of_a_stream(
    engine: DeviceEngine, reference: Engine, built_bundle: Path, gpu: CudaDouble,
    function: str, calls_before: int, error: str, frames: int,
) -> None:  # fmt: skip
    gpu.fail(function, error, after=calls_before)
    found, raised = stream_until(engine, built_bundle, iter([(frame, None) for frame in FRAMES]))
    assert str(raised) == f"{function} failed: {error}"
    assert_same(found, expected(reference, built_bundle, FRAMES[:frames]))


def test_a_frame_that_failed_is_not_taken_for_the_next(
    engine: DeviceEngine, reference: Engine, built_bundle: Path, gpu: CudaDouble
) -> None:
    retargeter = Retargeter(open_bundle(built_bundle), engine=engine)
    wanted = expected(reference, built_bundle, FRAMES[:3])
    assert np.array_equal(retargeter(FRAMES[0]).rgb, wanted[0])
    gpu.fail("cuEventSynchronize", "CUDA_ERROR_UNKNOWN")
    with pytest.raises(EngineError, match="cuEventSynchronize failed: CUDA_ERROR_UNKNOWN"):
        retargeter(FRAMES[1])
    assert np.array_equal(retargeter(FRAMES[2]).rgb, wanted[2])
    retargeter.close()


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("execute", "tensorrt: extractor: execute_async_v3 failed: enqueueV3: no kernel image"),
        ("context", "tensorrt: extractor: no execution context: enqueueV3: no kernel image"),
    ],
)
def test_an_error_of_tensorrt(
    engine: DeviceEngine, tensorrt_double: Double, built_bundle: Path, fault: str, words: str
) -> None:
    retargeter = Retargeter(open_bundle(built_bundle), engine=engine)
    setattr(tensorrt_double, fault, ["enqueueV3: no kernel image"])
    with pytest.raises(EngineError) as caught:
        retargeter(FRAMES[0])
    assert str(caught.value) == words
    setattr(tensorrt_double, fault, ["enqueueV3: no kernel image"])
    with pytest.raises(EngineError) as caught:
        engine.run("extractor", {"frame": batch(0)})
    assert str(caught.value) == words
    assert retargeter(FRAMES[0]).rgb.shape == (64, 64, 3)  # it was but that once
    retargeter.close()


def test_out_of_memory_when_a_queue_is_made(engine: DeviceEngine, gpu: CudaDouble, built_bundle: Path) -> None:
    before = gpu.alive()
    for function, after in (("cuMemAlloc", 5), ("cuMemAlloc", 10), ("cuMemHostAlloc", 4), ("cuStreamCreate", 2)):
        gpu.fail(function, "CUDA_ERROR_OUT_OF_MEMORY", after)
        with pytest.raises(EngineError, match=f"{function} failed: CUDA_ERROR_OUT_OF_MEMORY"):
            engine.frames("a2b", open_bundle(built_bundle).appearance("b"))
        assert gpu.alive() == before


def test_close_frees_everything_and_is_final(built_bundle: Path, gpu: CudaDouble, tensorrt_double: Double) -> None:
    engine = load_engine("tensorrt", open_bundle(built_bundle))
    assert isinstance(engine, DeviceEngine)
    looks = open_bundle(built_bundle).appearance("b")
    queue = engine.frames("a2b", looks)
    queue.enqueue(batch(0))
    engine.run("extractor", {"frame": batch(0)})
    assert {"device", "host", "stream", "event", "executable"} <= set(gpu.alive())
    engine.close()
    engine.close()
    assert gpu.alive() == []
    tensorrt_double.calls.clear()  # they hold what they returned
    assert [tensorrt_double.alive(kind) for kind in TENSORRT_OBJECTS] == [0, 0, 0]  # the queue kept none of them
    for use in (lambda: queue.enqueue(batch(1)), queue.collect):
        with pytest.raises(EngineError):
            use()
    queue.close()


def test_a_closed_engine_says_so(built_bundle: Path) -> None:
    engine = load_engine("tensorrt", open_bundle(built_bundle))
    assert isinstance(engine, DeviceEngine)
    engine.run("extractor", {"frame": batch(0)})
    engine.close()
    for use in (
        lambda: engine.run("extractor", {"frame": batch(0)}),
        lambda: engine.frames("a2b", np.ones((1, 3, 32, 32), np.float32)),
    ):
        with pytest.raises(EngineError, match="closed"):
            use()


def test_who_gives_no_monitor_reads_it_in_the_log(
    built_bundle: Path, gpu: CudaDouble, caplog: pytest.LogCaptureFixture
) -> None:
    Retargeter(built_bundle, engine="tensorrt").close()
    assert caplog.messages == ["tensorrt 11.4.0.106 on Double of a GPU, sampler plugin"]


def test_a_queue_frees_what_it_holds(
    engine: DeviceEngine, built_bundle: Path, gpu: CudaDouble, tensorrt_double: Double
) -> None:
    before = gpu.alive()
    retargeter = Retargeter(open_bundle(built_bundle), engine=engine, mode="throughput")
    stream = retargeter.retarget_all((frame, None) for frame in FRAMES)
    next(stream)
    assert len(gpu.alive()) > len(before)
    stream.close()  # with frames in flight
    assert gpu.alive() == before
    retargeter(FRAMES[0])
    assert len(gpu.alive()) > len(before)
    retargeter.close()
    assert gpu.alive() == before
    tensorrt_double.calls.clear()  # they hold what they returned
    assert tensorrt_double.alive("IExecutionContext") == 0


def test_a_retargeter_closes_the_engine_it_loaded_and_no_other(
    built_bundle: Path, engine: DeviceEngine, gpu: CudaDouble
) -> None:
    before = gpu.alive()
    with Retargeter(built_bundle, engine="tensorrt") as retargeter:
        retargeter(FRAMES[0])
        assert len(gpu.alive()) > len(before)
    assert gpu.alive() == before
    with Retargeter(built_bundle, engine=engine) as retargeter:
        retargeter(FRAMES[0])
    assert engine.run("extractor", {"frame": batch(0)})["keypoints"].shape == (1, 10, 2)


def test_an_engine_that_is_dropped_is_closed(built_bundle: Path, gpu: CudaDouble, tensorrt_double: Double) -> None:
    Retargeter(built_bundle, engine="tensorrt")(FRAMES[0])
    tensorrt_double.calls.clear()
    gc.collect()
    assert gpu.alive() == []


def test_a_whole_video(engine: DeviceEngine, reference: Engine, built_bundle: Path, tmp_path: Path) -> None:
    source = clips.video(tmp_path / "in.mp4", 12)
    bundle = open_bundle(built_bundle)
    report = retarget_stream(Retargeter(bundle, engine=engine, mode="throughput"), source, tmp_path / "ours.mkv")
    retarget_stream(Retargeter(bundle, engine=reference), source, tmp_path / "theirs.mkv")
    ours, theirs = ([frame.rgb for frame in read_video(tmp_path / name)] for name in ("ours.mkv", "theirs.mkv"))
    assert_same(ours, theirs)
    assert (report.frames, len(ours)) == (12, 12)
    assert list(report.stages) == ["read", "frame", "write"]


def test_smoothed_keypoints_go_by_way_of_the_host(
    engine: DeviceEngine, reference: Engine, built_bundle: Path, gpu: CudaDouble
) -> None:
    bundle = open_bundle(built_bundle)
    ours, theirs = (
        [result.image.rgb for result in Retargeter(bundle, engine=each).retarget_all(pairs, OneEuroFilter(0.5))]
        for each, pairs in (
            (engine, [(frame, None) for frame in FRAMES]),
            (reference, [(frame, None) for frame in FRAMES]),
        )
    )
    assert_same(ours, theirs)
    assert "cuGraphLaunch" not in gpu.calls


def test_ctrl_c_loses_nothing_that_was_begun(
    engine: DeviceEngine, reference: Engine, built_bundle: Path, tmp_path: Path
) -> None:
    source, output = clips.video(tmp_path / "in.mp4", 40), tmp_path / "out.mkv"

    def progress(done: int, total: int | None) -> None:
        if done == 5:
            signal.raise_signal(signal.SIGINT)

    bundle = open_bundle(built_bundle)
    stream = Retargeter(bundle, engine=engine, mode="throughput")
    with pytest.raises(KeyboardInterrupt) as caught:
        retarget_stream(stream, source, output, progress=progress, crf=0)
    part = tmp_path / "out.mkv.part"
    assert str(caught.value) == f"the first 6 frames are kept in {part}"  # the sixth was on the device
    retarget_stream(Retargeter(bundle, engine=reference), source, tmp_path / "whole.mkv", crf=0)
    # Without loss, as loss depends on the frames that follow.
    kept, whole = ([frame.rgb for frame in read_video(path)] for path in (part, tmp_path / "whole.mkv"))
    assert_same(kept, whole[:6])
