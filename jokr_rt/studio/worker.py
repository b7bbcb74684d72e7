"""The model, and the one thread that it runs in, whoever asks."""

import asyncio
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from jokr_rt.bundle import DIRECTIONS
from jokr_rt.engines import Engine
from jokr_rt.retarget import Model, Retargeter

_Args = ParamSpec("_Args")
_Result = TypeVar("_Result")
_HOT = np.array([(0, 0, 0), (90, 0, 90), (220, 60, 30), (255, 190, 40), (255, 255, 230)], np.float32)


async def to_its_end(function: Callable[_Args, _Result], *args: _Args.args, **kwargs: _Args.kwargs) -> _Result:
    """`asyncio.to_thread` which, where it is cancelled, waits: what the thread uses may be closed after it."""
    future = asyncio.ensure_future(asyncio.to_thread(function, *args, **kwargs))
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        await asyncio.wait([future])
        raise


class Worker:
    """model, engine: as loaded. `call` runs something in the thread; the other methods are to be called there."""

    def __init__(self, model: Model, engine: Engine) -> None:
        self.model = model
        self.engine = engine
        self._thread = ThreadPoolExecutor(1, "jokr-studio")
        self._retargeters: dict[str, Retargeter] = {}

    async def call(self, function: Callable[_Args, _Result], *args: _Args.args, **kwargs: _Args.kwargs) -> _Result:
        """Frames of several visitors take turns, for each waits for his own before he asks for the next."""
        return await asyncio.wrap_future(self._thread.submit(function, *args, **kwargs))

    def retargeter(self, direction: str) -> Retargeter:
        """For "a2b" or "b2a"; made at first use. It keeps nothing of one frame for the next, so that all share it."""
        if direction not in self._retargeters:
            self._retargeters[direction] = Retargeter(self.model, direction, self.engine)
        return self._retargeters[direction]

    def warm(self) -> None:
        """Compile what the first frame of a visitor would otherwise wait for."""
        size = self.model.config.size
        for direction in DIRECTIONS:
            keypoints, _ = self.retargeter(direction).extract(np.zeros((size, size, 3), np.uint8))
            self.retargeter(direction).draw(keypoints)

    def heatmaps(self, direction: str, keypoints: NDArray[np.float32]) -> NDArray[np.uint8]:
        """(size, size, 3): what the generator is given for a pose (K, 2), the brightest of its maps, in colours."""
        warped = self.engine.run(f"stn-{direction}", {"keypoints": keypoints[None]})["warped"][0]
        level = warped.max(axis=0).clip(0, 1) * (len(_HOT) - 1)
        low = level.astype(int).clip(0, len(_HOT) - 2)
        share = (level - low)[..., None]
        colours = np.rint(_HOT[low] * (1 - share) + _HOT[low + 1] * share).astype(np.uint8)
        return colours.repeat(2, axis=0).repeat(2, axis=1)

    def close(self) -> None:
        """Wait for what runs, drop what waits, and free what the retargeters hold."""
        self._thread.shutdown(cancel_futures=True)
        for retargeter in self._retargeters.values():
            retargeter.close()


class Stopwatch:
    """Milliseconds that each stage of one answer took."""

    def __init__(self) -> None:
        self.ms: dict[str, float] = {}
        self._asked = time.perf_counter()

    def begin(self) -> None:
        """Called where the work begins: until now it waited for its turn."""
        self.ms["wait"] = round(1e3 * (time.perf_counter() - self._asked), 2)

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.ms[stage] = round(1e3 * (time.perf_counter() - start), 2)
