"""From a frame of one video to a frame of the other's creature in the same pose."""

import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from jokr_rt.bundle import DIRECTIONS, Arrays, Bundle, open_bundle
from jokr_rt.config import ModelConfig
from jokr_rt.engines import MODES, DeviceEngine, Engine, FrameQueue, StagedEngine, Stages, load_engine
from jokr_rt.engines.stages import Edit, GraphStages, StageFrames, in_order
from jokr_rt.errors import EngineError, UsageError
from jokr_rt.familiar import Familiarity, familiarity
from jokr_rt.frame import Frame
from jokr_rt.keypoints import OneEuroFilter
from jokr_rt.timing import Timings
from jokr_rt.video import Pair, letterbox


class Model(Protocol):
    """What a retargeter must know of a model besides its graphs. A Bundle is one."""

    @property
    def config(self) -> ModelConfig: ...

    @property
    def domains(self) -> dict[str, str]: ...

    def appearance(self, domain: str) -> NDArray[np.float32]: ...


@dataclass(frozen=True)
class Retargeted:
    """A frame and what became of it.

    source: the frame as the extractor saw it, size x size. image: the other creature in its pose, same size and time.
    keypoints: (K, 2) float32 (x, y) in [-1, 1], found in `source`, and smoothed where that was asked for. confidence:
    (K,) float32 in [0, 1].
    """

    source: Frame
    image: Frame
    keypoints: NDArray[np.float32]
    confidence: NDArray[np.float32]


class Retargeter:
    """Draws one video's creature in the poses of the other's; for the frames of one stream at a time.

    bundle: an opened bundle or its path. direction: "a2b" draws b's creature in a's poses, "b2a" the reverse; the
    domains' names do too, as in "cat2fox". engine: "auto" or one of `jokr_rt.engines.KINDS`, or a loaded engine.
    mode: one of `jokr_rt.engines.MODES`; it decides what `retarget_all` does, and how the processor's cores are shared.
    `timings` holds how long "extract" (frame to keypoints), "draw" (keypoints to image) and the whole "frame" took, the
    last one alone where an engine keeps frames on a device. They overlap where several frames are computed at once.

    A context manager: leaving it frees what it holds on a device, with the engine if it loaded that itself. Raises
    UsageError for an unknown direction, engine or mode, and what `open_bundle`, `load_engine` and
    `StagedEngine.stages` raise.
    """

    def __init__(
        self, bundle: Model | str | Path, direction: str = "a2b", engine: str | Engine = "auto", mode: str = "latency"
    ) -> None:
        if mode not in MODES:
            raise UsageError(f"unknown mode {mode!r}; choose {' or '.join(MODES)}")
        model: Model = open_bundle(bundle) if isinstance(bundle, (str, Path)) else bundle
        self.config, self.domains = model.config, model.domains
        self.model = model
        self.direction = find_direction(direction, model.domains)
        self.mode = mode
        self._owns_engine = isinstance(engine, str)
        if isinstance(engine, str):
            if not isinstance(model, Bundle):
                raise UsageError(f"engine {engine!r} runs a bundle; make one with `jokr export`")
            engine = load_engine(engine, model)
        self.engine: Engine = engine
        self._device_engine = engine if isinstance(engine, DeviceEngine) else None
        self.timings = Timings()
        self._appearance = model.appearance(DIRECTIONS[self.direction][1])
        self._stages = self._load_stages(engine)
        self._single: FrameQueue | None = None  # for one frame at a time; made when first used

    def _load_stages(self, engine: Engine) -> Stages:
        if isinstance(engine, StagedEngine):
            return engine.stages(self.direction, self._appearance, self.mode)
        # What was captured on a device belongs to the thread that did it.
        workers = 2 if self.mode == "throughput" and self._device_engine is None else 1
        return GraphStages(engine, self.direction, self._appearance, workers)

    def __enter__(self) -> "Retargeter":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Free what it holds on a device. May be called twice; an engine that was given stays open."""
        if self._single is not None:
            self._single.close()
            self._single = None
        if self._owns_engine and self._device_engine is not None:
            self._device_engine.close()

    def familiarity(self) -> Familiarity | None:
        """For one stream: whether it shows the creature that this moves. See `jokr_rt.familiar`."""
        return familiarity(self.model, self.direction)

    @property
    def size(self) -> int:
        """Side of the square frames in and out, pixels."""
        return self.config.size

    def __call__(self, frame: Frame, mask: NDArray[np.bool_] | None = None) -> Frame:
        """The other creature in the pose of this frame: (size, size, 3), at the same time. See `retarget`."""
        return self.retarget(frame, mask).image

    def retarget(
        self, frame: Frame, mask: NDArray[np.bool_] | None = None, smoothing: OneEuroFilter | None = None
    ) -> Retargeted:
        """All that the graphs say of one frame, which is letterboxed to size x size if it is not that already.

        mask: (size, size) bool, true on the object, letterboxed likewise; see `jokr_rt.video.open_masks`.
        smoothing: the stream's own filter for its keypoints, at the frame's time.
        Raises EngineError, and UsageError for a mask of another shape and a frame that, smoothed, is not later than the
        last one.
        """
        source = self.source(frame, mask)
        with self.timings.measure("frame"):
            if smoothing is None and self._device_engine is not None:
                return self._retarget_whole(self._device_engine, source)
            keypoints, confidence = self.extract(source.rgb)
            if smoothing is not None:
                keypoints = smoothing(keypoints, frame.pts_seconds)
            image = Frame(self.draw(keypoints), frame.pts, frame.time_base)
        return Retargeted(source, image, keypoints, confidence)

    def retarget_all(
        self, pairs: Iterable[Pair], smoothing: OneEuroFilter | None = None
    ) -> Generator[Retargeted, None, None]:
        """`retarget` for each frame of a stream with its mask or None, in order.

        With mode "throughput" some frames are drawn from `pairs` before the first of them is yielded. What `pairs`
        raises comes after all that was begun; what a frame raises comes in its place.
        """
        if smoothing is None and self._device_engine is not None:
            queue: FrameQueue = self._device_engine.frames(self.direction, self._appearance)
        elif smoothing is None:
            queue = StageFrames(self._stages, self.timings)
        else:
            seconds: deque[float] = deque()
            pairs = _noting_times(pairs, seconds)
            queue = StageFrames(self._stages, self.timings, _smoothing_edit(smoothing, seconds))
        with closing(queue):
            yield from self._in_flight(queue, iter(pairs))

    def extract(self, rgb: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Keypoints (K, 2) and their confidence (K,) in a picture (size, size, 3) uint8. Raises EngineError."""
        with self.timings.measure("extract"):
            keypoints, confidence = self._stages.extract(rgb[None])
        return self._finite(keypoints[0]), confidence[0]

    def draw(self, keypoints: NDArray[np.float32]) -> NDArray[np.uint8]:
        """The target's creature (size, size, 3) uint8 in the pose of keypoints (K, 2). Raises EngineError."""
        with self.timings.measure("draw"):
            return self._stages.draw(keypoints[None])[0]

    def extract_all(
        self, pairs: Iterable[Pair]
    ) -> Generator[tuple[NDArray[np.float32], NDArray[np.float32]], None, None]:
        """`extract` for each frame of a stream with its mask or None, letterboxed, in order.

        With mode "throughput" some frames are drawn from `pairs` before the first result is yielded.
        """
        return in_order(lambda pair: self.extract(self.source(*pair).rgb), pairs, self._workers)

    def draw_all(self, poses: Iterable[NDArray[np.float32]]) -> Generator[NDArray[np.uint8], None, None]:
        """`draw` for each of the poses (K, 2), in order. As `extract_all` otherwise."""
        return in_order(self.draw, poses, self._workers)

    @property
    def _workers(self) -> int:
        return self._stages.workers if self.mode == "throughput" else 1

    def source(self, frame: Frame, mask: NDArray[np.bool_] | None) -> Frame:
        """What the extractor sees of a frame: size x size, and black where its mask (size, size) is not true.

        Raises UsageError for a mask of another shape.
        """
        source = letterbox(frame, self.size)
        return source if mask is None else _before_black(source, mask)

    def _retarget_whole(self, engine: DeviceEngine, source: Frame) -> Retargeted:
        queue = self._single = self._single or engine.frames(self.direction, self._appearance)
        try:
            queue.enqueue(source.rgb[None])
            return self._retargeted(source, queue.collect())
        except BaseException:  # with it goes a frame that was not collected, which the next call would take for its own
            self._single = None
            queue.close()
            raise

    def _in_flight(self, queue: FrameQueue, pairs: Iterator[Pair]) -> Generator[Retargeted, None, None]:
        begun: deque[tuple[Frame, float]] = deque()
        depth, more = queue.depth if self.mode == "throughput" else 1, True
        while more or begun:
            try:
                more = more and self._begin(queue, pairs, begun)
            except Exception:
                with suppress(EngineError):  # of the same kind, most likely, and later
                    while begun:
                        yield self._finish(queue, *begun.popleft())
                raise
            if begun and (len(begun) == depth or not more):
                yield self._finish(queue, *begun.popleft())

    def _begin(self, queue: FrameQueue, pairs: Iterator[Pair], begun: deque[tuple[Frame, float]]) -> bool:
        """Enqueue the next of the pairs; false if there is none."""
        if (pair := next(pairs, None)) is None:
            return False
        source, start = self.source(*pair), time.perf_counter()
        queue.enqueue(source.rgb[None])
        begun.append((source, start))
        return True

    def _finish(self, queue: FrameQueue, source: Frame, start: float) -> Retargeted:
        result = self._retargeted(source, queue.collect())
        self.timings.add("frame", time.perf_counter() - start)
        return result

    def _retargeted(self, source: Frame, found: Arrays) -> Retargeted:
        image = Frame(found["image"][0], source.pts, source.time_base)
        return Retargeted(source, image, self._finite(found["keypoints"][0]), found["confidence"][0])

    def _finite(self, keypoints: NDArray[np.float32]) -> NDArray[np.float32]:
        """The keypoints. Raises EngineError for NaN, from which a picture would be drawn all the same."""
        if not np.isfinite(keypoints).all():
            raise EngineError(
                f"{self.engine.name}: keypoints in {self.engine.precision} are NaN or infinite; "
                "try another --precision, and look with `jokr verify`"
            )
        return keypoints


def _noting_times(pairs: Iterable[Pair], seconds: deque[float]) -> Iterator[Pair]:
    """The same pairs; the times of their frames in seconds are appended."""
    for frame, mask in pairs:
        seconds.append(frame.pts_seconds)
        yield frame, mask


def _smoothing_edit(smoothing: OneEuroFilter, seconds: deque[float]) -> Edit:
    """seconds: the times of the frames whose keypoints it gets, in order."""
    return lambda keypoints: smoothing(keypoints[0], seconds.popleft())[None]


def _before_black(frame: Frame, mask: NDArray[np.bool_]) -> Frame:
    if mask.dtype != np.bool_ or mask.shape != frame.rgb.shape[:2]:
        raise UsageError(f"a mask must be bool {frame.rgb.shape[:2]}, not {mask.dtype} {mask.shape}")
    return Frame(frame.rgb * mask[..., None], frame.pts, frame.time_base)


def find_direction(name: str, domains: dict[str, str]) -> str:
    """ "a2b" or "b2a" for either of these, which come first, or for its name. Raises UsageError."""
    if name in DIRECTIONS:
        return name
    fitting = [direction for direction in DIRECTIONS if name == direction_name(direction, domains)]
    if len(fitting) == 1:  # both, where the creatures have one name
        return fitting[0]
    raise UsageError(f"unknown direction {name!r}; this model has {known_directions(domains)}")


def direction_name(direction: str, domains: dict[str, str]) -> str:
    """Such as "cat2fox" for "a2b": whose motion, whose looks."""
    source, target = DIRECTIONS[direction]
    return f"{domains[source]}2{domains[target]}"


def known_directions(domains: dict[str, str]) -> str:
    """For messages: the letters of each, and its name."""
    return " and ".join(f"{direction} ({direction_name(direction, domains)})" for direction in DIRECTIONS)
