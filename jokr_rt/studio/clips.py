"""A clip as the studio keeps it: where the keypoints are in each frame, and a small picture of it."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from jokr_rt.errors import InputError
from jokr_rt.studio.limits import Limits
from jokr_rt.studio.worker import Worker, to_its_end
from jokr_rt.tracks import Tracks
from jokr_rt.video import Pair, jpeg, open_masks, open_video, with_masks

Progress = Callable[[int, int | None], Awaitable[None]]
"""Told after every frame: frames read, and an estimate of how many there are."""


@dataclass(frozen=True)
class Clip:
    """path, masks: what was read. name: for people. tracks: as found. pictures: of each frame, as the extractor saw it,
    in JPEG. has_audio: whether there is sound to be copied beside an edited one."""

    path: Path
    masks: Path | None
    name: str
    tracks: Tracks
    pictures: tuple[bytes, ...]
    has_audio: bool


class GivenClip:
    """The clip that the studio was started with: read once, for everybody."""

    def __init__(self, worker: Worker, path: Path, masks: Path | None) -> None:
        self._worker, self._path, self._masks = worker, path, masks
        self._read = asyncio.Event()
        self._clip: Clip | None = None
        self._done = 0
        self._total: int | None = None

    async def read(self) -> None:
        """Raises what `load_clip` does."""
        self._clip = await load_clip(self._worker, self._path, self._masks, self._path.name, None, self._count)
        self._read.set()

    async def _count(self, done: int, total: int | None) -> None:
        self._done, self._total = done, total

    async def wait(self, progress: Progress) -> Clip:
        """The clip, when it has been read."""
        while self._clip is None:
            await progress(self._done, self._total)
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._read.wait(), 0.3)
        return self._clip


async def load_clip(
    worker: Worker, path: Path, masks: Path | None, name: str, limits: Limits | None, progress: Progress
) -> Clip:
    """Read a clip and find its keypoints, in the same way as `jokr run`.

    masks: as its `--masks`. limits: for a clip from a visitor. Raises InputError, EngineError; a cancelled one leaves
    nothing open.
    """
    size, most = worker.model.config.size, limits.clip_pixels if limits else None
    with ExitStack() as stack:
        source = stack.enter_context(await to_its_end(open_video, path, size=size, max_pixels=most))
        mattes = stack.enter_context(await to_its_end(open_masks, masks, size=size)) if masks is not None else None
        pts, found = [], []
        pairs = _within(with_masks(source, mattes), limits)
        while (pair := await to_its_end(next, pairs, None)) is not None:
            pts.append(pair[0].pts)
            found.append(await worker.call(_look, worker, pair))
            await progress(len(found), source.length_estimate)
        keypoints, confidence, pictures = zip(*found, strict=True)
        tracks = Tracks(
            np.array(pts, np.int64), source.time_base, source.rate, np.stack(keypoints), np.stack(confidence)
        )
        return Clip(path, masks, name, tracks, pictures, source.has_audio)


def _look(worker: Worker, pair: Pair) -> tuple[NDArray[np.float32], NDArray[np.float32], bytes]:
    retargeter = worker.retargeter("a2b")  # the extractor is the same in both directions
    seen = retargeter.source(*pair).rgb
    keypoints, confidence = retargeter.extract(seen)
    return keypoints, confidence, jpeg(seen)


def _within(pairs: Iterator[Pair], limits: Limits | None) -> Iterator[Pair]:
    first: float | None = None
    for index, (frame, mask) in enumerate(pairs):
        first = frame.pts_seconds if first is None else first
        if limits is not None and index >= limits.clip_frames:
            raise InputError(f"the clip has more than {limits.clip_frames} frames; cut it first")
        if limits is not None and frame.pts_seconds - first > limits.clip_seconds:
            raise InputError(f"the clip is longer than {limits.clip_seconds:g} s; cut it first")
        yield frame, mask
