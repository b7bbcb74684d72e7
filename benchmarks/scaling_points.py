"""The points of scaling.py, each measured in a process of its own, without PyTorch in it."""

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from jokr_rt.bench.child import Found, peak_bytes
from jokr_rt.bench.figures import percentiles
from jokr_rt.bundle import DIRECTIONS, Bundle, open_bundle
from jokr_rt.engines import Engine, load_engine
from jokr_rt.evaluation.puppets import BROWN, TEST, joints, render
from jokr_rt.frame import Frame
from jokr_rt.retarget import Retargeter

DIRECTION = "a2b"
WARM_UPS = 10
FRAMES = 8


def point(bundle: str, axis: str, value: float, engine: str, precision: str, repeats: int) -> Iterator[Found]:
    """Milliseconds of a frame, and the most memory; see `jokr_rt.bench.child`."""
    if axis == "threads":
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: int(value)])
    opened = open_bundle(bundle)
    if axis == "batch":
        yield _batch(opened, load_engine(engine, opened, precision), int(value), repeats)
    else:
        loads = (load_engine(engine, opened, precision) for _ in range(int(value) if axis == "streams" else 1))
        yield _frames([Retargeter(opened, DIRECTION, loaded) for loaded in loads], repeats)


def _frames(retargeters: list[Retargeter], repeats: int) -> Found:
    """A frame by each of them at the same time."""
    pictures = _pictures(retargeters[0].size)

    def draw(index: int) -> None:
        frame = Frame(pictures[index % FRAMES], index, Fraction(1, 25))
        list(pool.map(lambda retargeter: retargeter(frame), retargeters))

    with ThreadPoolExecutor(len(retargeters)) as pool:
        return _timed(draw, repeats, len(retargeters))


def _batch(bundle: Bundle, engine: Engine, count: int, repeats: int) -> Found:
    """Frames in one call of each graph."""
    size, target = bundle.config.size, DIRECTIONS[DIRECTION][1]
    frames = np.resize(_pictures(size), (count, size, size, 3))
    appearance = np.repeat(bundle.appearance(target), count, axis=0)

    def draw(index: int) -> None:
        keypoints = engine.run("extractor", {"frame": frames})["keypoints"]
        warped = engine.run(f"stn-{DIRECTION}", {"keypoints": keypoints})["warped"]
        engine.run("generator", {"warped": warped, "appearance": appearance})

    return _timed(draw, repeats, count)


def _timed(draw: Callable[[int], None], repeats: int, frames: int) -> Found:
    """Milliseconds a frame, of which a call draws `frames`."""
    for index in range(WARM_UPS):
        draw(index)
    times = []
    for index in range(repeats):
        start = time.perf_counter()
        draw(index)
        times.append((time.perf_counter() - start) * 1e3 / frames)
    return {"ms": percentiles(times)["p50"], "latency_ms": percentiles(times), "peak_bytes": peak_bytes()}


def _pictures(size: int) -> NDArray[np.uint8]:
    poses = joints(BROWN, TEST.motion())[:FRAMES]
    return np.stack([render(BROWN, pose, size)[0] for pose in poses])
