"""Frames on the processor: a direction's graphs as two calls, and the queue that schedules several frames of them."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from threading import Lock
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from jokr_rt.bundle import Arrays
from jokr_rt.engines import Engine, Stages
from jokr_rt.errors import EngineError
from jokr_rt.timing import Timings

Edit = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""From keypoints (1, K, 2) as found to those that are drawn."""


_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class GraphStages:
    """`jokr_rt.engines.Stages` of any engine, through its `run`: no graph in two threads at once, as an engine may ask.

    workers: 2 lets the next frame's extractor run beside this frame's generator.
    """

    def __init__(self, engine: Engine, direction: str, appearance: NDArray[np.float32], workers: int) -> None:
        self.workers = workers
        self._engine, self._stn, self._appearance = engine, f"stn-{direction}", appearance
        self._extracting, self._drawing = Lock(), Lock()

    def extract(self, frame: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        with self._extracting:
            found = self._engine.run("extractor", {"frame": frame})
        return found["keypoints"], found["confidence"]

    def draw(self, keypoints: NDArray[np.float32]) -> NDArray[np.uint8]:
        with self._drawing:
            warped = self._engine.run(self._stn, {"keypoints": keypoints})["warped"]
            image = self._engine.run("generator", {"warped": warped, "appearance": self._appearance})["image"]
        return np.asarray(image, np.uint8)


class StageFrames:
    """See `jokr_rt.engines.FrameQueue`: frames, one in a call, through `Stages`, by as many threads as these take.

    edit: called with every frame's keypoints, in the order of the frames and never twice at once. With one worker
    there is no thread, and a frame is computed when it is collected. timings: counts "extract" and "draw".
    """

    def __init__(self, stages: Stages, timings: Timings, edit: Edit | None = None) -> None:
        self._stages, self._timings, self._edit = stages, timings, edit
        self._pool = ThreadPoolExecutor(stages.workers, "jokr-infer") if stages.workers > 1 else None
        # One more than are computed: a thread that is done finds the next frame waiting.
        self.depth = stages.workers + 1 if self._pool else 1
        self._begun: deque[Callable[[], Arrays]] = deque()
        self._last_edited: Future[None] | None = None

    def enqueue(self, frame: NDArray[np.uint8]) -> None:
        if len(self._begun) == self.depth:
            raise EngineError(f"{self.depth} frames are in flight already; collect one first")
        edited: Future[None] = Future()
        compute = partial(self._compute, frame, self._last_edited, edited)
        self._begun.append(self._pool.submit(compute).result if self._pool else compute)
        self._last_edited = edited

    def collect(self) -> Arrays:
        if not self._begun:
            raise EngineError("no frame is in flight")
        return self._begun.popleft()()

    def close(self) -> None:
        self._begun.clear()
        if self._pool:
            self._pool.shutdown(cancel_futures=True)

    def _compute(self, frame: NDArray[np.uint8], before: Future[None] | None, edited: Future[None]) -> Arrays:
        """before: done when the frame before has been edited; edited: to be done when this one has."""
        try:
            with self._timings.measure("extract"):
                found, confidence = self._stages.extract(frame)
            keypoints = self._edit_in_turn(found, before)
        except BaseException as error:  # for the frames behind, too: they cannot be edited without this one
            edited.set_exception(error)
            raise
        edited.set_result(None)
        with self._timings.measure("draw"):
            image = self._stages.draw(keypoints)
        return {"image": image, "keypoints": keypoints, "confidence": confidence}

    def _edit_in_turn(self, keypoints: NDArray[np.float32], before: Future[None] | None) -> NDArray[np.float32]:
        if self._edit is None:
            return keypoints
        if before is not None:
            before.result()
        return self._edit(keypoints)


def in_order(call: Callable[[_Item], _Result], items: Iterable[_Item], workers: int) -> Generator[_Result, None, None]:
    """`map`, by as many threads: some items are taken ahead, and the results come in their order."""
    if workers == 1:
        yield from map(call, items)
        return
    with ThreadPoolExecutor(workers, "jokr-infer") as pool:
        begun: deque[Future[_Result]] = deque()
        try:
            for item in items:
                begun.append(pool.submit(call, item))
                if len(begun) > workers:
                    yield begun.popleft().result()
            while begun:
                yield begun.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
