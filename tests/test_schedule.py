"""Several frames at once: all of them, in order, whatever each one takes; and nothing runs where there is no work."""

import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from jokr_rt import Frame, Retargeter, open_bundle, read_video
from jokr_rt.bundle import Arrays, Bundle
from jokr_rt.engines import ENGINES, MODES, Engine, StagedEngine, Stages, load_engine
from jokr_rt.engines.stages import GraphStages, StageFrames
from jokr_rt.errors import EngineError, InputError, UsageError
from jokr_rt.keypoints import OneEuroFilter
from jokr_rt.retarget import Retargeted
from jokr_rt.stream import retarget_stream
from jokr_rt.timing import Timings
from jokr_rt.training.checkpoint import load_checkpoint
from jokr_rt.training.engine import TorchEngine
from jokr_rt.video import Pair
from tests import clips
from tests.process import ROOT
from tests.threads import no_thread_is_left
from tests.tiny import TINY, creature_frames
from tests.tolerances import FP32, LEVELS

TICK = Fraction(1, 90000)
COUNT = 24


def pairs(count: int = COUNT) -> list[Pair]:
    """Frames that all differ, at uneven times, each with a mask of its own."""
    times = np.cumsum(np.random.default_rng(1).integers(1, 9000, count))
    masks = np.random.default_rng(2).random((count, TINY.size, TINY.size)) < 0.9
    rgb = creature_frames(count, TINY.size, seed=4)
    return [(Frame(picture, int(at), TICK), mask) for picture, at, mask in zip(rgb, times, masks, strict=True)]


class Moody:
    """An engine that takes a random time for each graph, and calls `before` with a graph's name and how often it ran.

    Without `stages`, so that it is run graph by graph.
    """

    name = "moody"
    precision = "fp32"

    def __init__(self, engine: Engine, seed: int = 0, before: Callable[[str, int], object] = lambda *_: None) -> None:
        self.engine = engine
        self.random = random.Random(seed)
        self.before = before
        self.runs: dict[str, int] = {}
        self.busy: set[str] = set()

    def run(self, graph: str, inputs: Arrays) -> Arrays:
        assert graph not in self.busy, "one graph in two threads"
        self.busy.add(graph)
        try:
            self.runs[graph] = self.runs.get(graph, 0) + 1
            self.before(graph, self.runs[graph])
            time.sleep(self.random.random() / 100)
            return self.engine.run(graph, inputs)
        finally:
            self.busy.remove(graph)


class MoodyStages:
    """The same for an engine's own stages, with so many workers."""

    def __init__(self, stages: Stages, seed: int, workers: int) -> None:
        self.stages, self.workers, self.random = stages, workers, random.Random(seed)

    def extract(self, frame: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        time.sleep(self.random.random() / 50)
        return self.stages.extract(frame)

    def draw(self, keypoints: NDArray[np.float32]) -> NDArray[np.uint8]:
        time.sleep(self.random.random() / 50)
        return self.stages.draw(keypoints)


class MoodyStaged(Moody):
    workers = 4

    def stages(self, direction: str, appearance: NDArray[np.float32], mode: str) -> Stages:
        assert isinstance(self.engine, StagedEngine)
        return MoodyStages(self.engine.stages(direction, appearance, mode), 5, self.workers)


def retargeted(bundle: Bundle, engine: Engine, mode: str, smooth: float | None = None) -> list[Retargeted]:
    retargeter = Retargeter(bundle, engine=engine, mode=mode)
    return list(retargeter.retarget_all(pairs(), None if smooth is None else OneEuroFilter(smooth)))


def assert_same(found: list[Retargeted], expected: list[Retargeted]) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert (one.image.pts, one.image.time_base) == (other.image.pts, other.image.time_base)
        assert np.array_equal(one.source.rgb, other.source.rgb)
        np.testing.assert_allclose(one.keypoints, other.keypoints, rtol=0, atol=FP32)
        np.testing.assert_allclose(one.confidence, other.confidence, rtol=0, atol=FP32)
        assert np.abs(one.image.rgb.astype(int) - other.image.rgb).max() <= LEVELS


@pytest.mark.parametrize("smooth", [None, 0.5])
@pytest.mark.parametrize("kind", [Moody, MoodyStaged])
@pytest.mark.parametrize("seed", range(3))
def test_random_delays_change_nothing(bundle: Bundle, kind: type[Moody], seed: int, smooth: float | None) -> None:
    """Smoothing and masks in the order of the frames: each result is that of one frame at a time."""
    expected = retargeted(bundle, load_engine("onnxruntime", bundle), "latency", smooth)
    found = retargeted(bundle, kind(load_engine("onnxruntime", bundle), seed), "throughput", smooth)
    assert_same(found, expected)
    assert [result.source.pts for result in found] == [frame.pts for frame, _ in pairs()]
    assert len({result.keypoints.tobytes() for result in found}) == COUNT
    assert no_thread_is_left()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", [*ENGINES, "torch"])
def test_every_engine_draws_the_same_in_every_mode(bundle: Bundle, tiny_checkpoint: Path, name: str, mode: str) -> None:
    engine = TorchEngine(load_checkpoint(tiny_checkpoint)) if name == "torch" else load_engine(name, bundle)
    reference = retargeted(bundle, load_engine("onnxruntime", bundle), "latency", 0.5)
    assert_same(retargeted(bundle, engine, mode, 0.5), reference)


def test_the_next_extractor_runs_beside_this_generator(bundle: Bundle) -> None:
    """Each waits for the other, which would be for ever if they took turns."""
    meeting = threading.Barrier(2, timeout=60)

    def meet(graph: str, count: int) -> None:
        if (graph, count) in (("extractor", 2), ("generator", 1)):
            meeting.wait()

    engine = Moody(load_engine("onnxruntime", bundle), before=meet)
    assert len(retargeted(bundle, engine, "throughput")) == COUNT


def test_one_frame_at_a_time_where_latency_counts(bundle: Bundle) -> None:
    """A frame is drawn before the next one is asked for, in the thread that asks."""
    engine, asked = Moody(load_engine("onnxruntime", bundle)), []

    def source() -> Iterator[Pair]:
        for pair in pairs():
            asked.append(engine.runs.get("generator", 0))
            assert no_thread_is_left()
            yield pair

    for done, _ in enumerate(Retargeter(bundle, engine=engine).retarget_all(source())):
        assert len(asked) == done + 1
    assert asked == list(range(COUNT))


@pytest.mark.parametrize("smooth", [None, 0.5])
@pytest.mark.parametrize("graph", ["extractor", "generator"])
def test_a_frame_that_fails_comes_in_its_place(bundle: Bundle, graph: str, smooth: float | None) -> None:
    def fail(name: str, count: int) -> None:
        if (name, count) == (graph, 13):
            raise EngineError(f"moody: {graph} failed")

    engine = Moody(load_engine("onnxruntime", bundle), before=fail)
    smoothing = None if smooth is None else OneEuroFilter(smooth)
    results = Retargeter(bundle, engine=engine, mode="throughput").retarget_all(pairs(), smoothing)
    found = []
    with pytest.raises(EngineError, match=f"moody: {graph} failed"):
        found.extend(results)
    assert [result.image.pts for result in found] == [frame.pts for frame, _ in pairs()[:12]]
    assert no_thread_is_left()


def test_nothing_is_edited_after_a_frame_that_failed(bundle: Bundle) -> None:
    """The edit may have a memory, such as a filter's."""
    frames = [frame.rgb[None] for frame, _ in pairs(6)]

    class FailingStages(MoodyStages):
        def extract(self, frame: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
            if frame is frames[2]:
                raise EngineError("moody: no")
            return super().extract(frame)

    stages = GraphStages(load_engine("onnxruntime", bundle), "a2b", bundle.appearance("b"), workers=2)
    edited: list[NDArray[np.float32]] = []
    with closing(
        StageFrames(FailingStages(stages, 1, workers=6), Timings(), lambda pose: edited.append(pose) or pose)
    ) as queue:
        for frame in frames:
            queue.enqueue(frame)
        found = [queue.collect(), queue.collect()]
        for _ in frames[2:]:
            with pytest.raises(EngineError, match="moody: no"):
                queue.collect()
    assert [pose.tobytes() for pose in edited] == [each["keypoints"].tobytes() for each in found]


def test_a_time_that_goes_back_is_refused_in_its_place(bundle: Bundle) -> None:
    frames = pairs()
    frames[7] = frames[6]
    retargeter = Retargeter(bundle, engine=MoodyStaged(load_engine("onnxruntime", bundle)), mode="throughput")
    found = []
    with pytest.raises(UsageError, match="times must increase"):
        found.extend(retargeter.retarget_all(frames, OneEuroFilter(0.5)))
    assert len(found) == 7
    assert no_thread_is_left()


def test_all_that_was_begun_comes_before_the_sources_error(bundle: Bundle) -> None:
    def source(count: int) -> Iterator[Pair]:
        yield from pairs()[:count]
        raise InputError("clip.mp4: damaged")

    engine = MoodyStaged(load_engine("onnxruntime", bundle))
    for count in range(7):
        found = []
        with pytest.raises(InputError, match="clip.mp4: damaged"):
            found.extend(Retargeter(bundle, engine=engine, mode="throughput").retarget_all(source(count)))
        assert [result.image.pts for result in found] == [frame.pts for frame, _ in pairs()[:count]]


def test_who_stops_early_leaves_no_thread(bundle: Bundle) -> None:
    engine = MoodyStaged(load_engine("onnxruntime", bundle))
    results = Retargeter(bundle, engine=engine, mode="throughput").retarget_all(pairs())
    next(results)
    results.close()
    assert no_thread_is_left()


def test_ctrl_c_loses_nothing_that_was_begun(bundle: Bundle, tmp_path: Path) -> None:
    source, output = clips.video(tmp_path / "in.mp4", 40), tmp_path / "out.mkv"
    whole = Retargeter(bundle, engine=load_engine("onnxruntime", bundle), mode="throughput")
    retarget_stream(whole, source, tmp_path / "whole.mkv", crf=0)

    def interrupt(done: int, total: int | None) -> None:
        if done == 5:
            signal.raise_signal(signal.SIGINT)

    stream = Retargeter(bundle, engine=MoodyStaged(load_engine("onnxruntime", bundle)), mode="throughput")
    with pytest.raises(KeyboardInterrupt) as caught:
        retarget_stream(stream, source, output, progress=interrupt, crf=0)
    begun = 5 + MoodyStaged.workers
    assert str(caught.value) == f"the first {begun} frames are kept in {output}.part"
    kept, expected = ([frame.rgb for frame in read_video(path)] for path in (f"{output}.part", tmp_path / "whole.mkv"))
    assert np.array_equal(kept, expected[:begun])
    assert no_thread_is_left()


def test_what_a_queue_refuses(bundle: Bundle) -> None:
    stages = GraphStages(load_engine("onnxruntime", bundle), "a2b", bundle.appearance("b"), workers=2)
    queue = StageFrames(stages, Timings())
    with pytest.raises(EngineError, match="no frame is in flight"):
        queue.collect()
    frame = creature_frames(1, TINY.size, seed=0)
    for _ in range(queue.depth):
        queue.enqueue(frame)
    with pytest.raises(EngineError, match=f"{queue.depth} frames are in flight already"):
        queue.enqueue(frame)
    assert {name: array.shape[0] for name, array in queue.collect().items()} == {
        "image": 1,
        "keypoints": 1,
        "confidence": 1,
    }
    queue.close()
    queue.close()
    assert no_thread_is_left()


def test_unknown_modes(tiny_bundle: Path) -> None:
    with pytest.raises(UsageError, match="unknown mode 'fast'; choose latency or throughput"):
        Retargeter(open_bundle(tiny_bundle), mode="fast")


PAUSED = """if True:
    import sys, time
    from jokr_rt import Retargeter
    from jokr_rt.stream import retarget_stream
    from jokr_rt.video import VideoSource
    bundle, source, output, engine, mode = sys.argv[1:]
    take, read = VideoSource.__next__, []
    def pause(video):
        read.append(0)
        if len(read) == 20:
            time.sleep(0.5)  # what was begun is done by then
            before = time.process_time()
            time.sleep(5)
            print(time.process_time() - before)
        return take(video)
    VideoSource.__next__ = pause
    retarget_stream(Retargeter(bundle, engine=engine, mode=mode), source, output)
"""


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ENGINES)
def test_a_paused_stream_takes_no_processor_time(tiny_bundle: Path, tmp_path: Path, name: str, mode: str) -> None:
    """Of the seconds that its source blocks; one thread that spins would take all of it."""
    source = clips.video(tmp_path / "in.mp4", 30)
    args = [tiny_bundle, source, tmp_path / "out.mp4", name, mode]
    spent = subprocess.check_output([sys.executable, "-c", PAUSED, *map(str, args)], cwd=ROOT, text=True)
    assert float(spent) < 0.02 * 5
