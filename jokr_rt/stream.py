"""A whole video through a retargeter: decoding, inference and encoding side by side, in constant memory."""

import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jokr_rt.errors import JokrError, UsageError
from jokr_rt.frame import Frame
from jokr_rt.interrupt import Interrupt, deferred_interrupt
from jokr_rt.keypoints import OneEuroFilter, draw_keypoints
from jokr_rt.retarget import Retargeted, Retargeter
from jokr_rt.timing import Timings, process_age
from jokr_rt.video import Pair, VideoWriter, letterbox, open_masks, open_video, with_masks

LAYOUTS = {"output": 1, "side-by-side": 3}
"""What a frame of the output shows, and how many squares that is."""

DEPTH = 4  # frames that wait before and after inference: evens out the coder's moods, and bounds the memory

Progress = Callable[[int, int | None], None]
"""Told after every frame: frames done, and an estimate of how many there are."""


@dataclass(frozen=True)
class Report:
    """What a run did. seconds: from the first frame read to the finished file.

    stages: p50, p95 and p99 in milliseconds of "read", "write" and what `Retargeter.timings` counts. They overlap, so
    they do not add up. first_frame_s: from the creation of the process to the first frame drawn, seconds; None where
    the system does not tell.
    """

    frames: int
    seconds: float
    stages: dict[str, dict[str, float]]
    first_frame_s: float | None

    @property
    def fps(self) -> float:
        return self.frames / self.seconds


def retarget_stream(
    retargeter: Retargeter,
    source: str | Path,
    output: str | Path,
    *,
    masks: str | Path | None = None,
    smooth: float | None = None,
    layout: str = "output",
    size: int | None = None,
    codec: str | None = None,
    crf: int = 18,
    audio: bool = True,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Retarget every frame of a video, a folder of frames or an image sequence, in order, at its own time.

    masks: a mask for each frame (white is the object), from a video or folder. smooth: cutoff in Hz, at rest, of a
    `OneEuroFilter` on the keypoints; lower is calmer and lags more. layout: "output", or "side-by-side" for input,
    keypoints and output. size: side of each of these squares in pixels, as the model has it unless given.
    codec, crf, audio, overwrite: see `VideoWriter`; audio copies the source's sound.

    Whatever ends the run early, Ctrl-C too, leaves what was done as a playable `output`.part, and the message of a
    JokrError or KeyboardInterrupt says so. Raises UsageError, InputError, OutputError, EngineError.
    """
    if layout not in LAYOUTS:
        raise UsageError(f"unknown layout {layout!r}; choose {' or '.join(LAYOUTS)}")
    if size is not None and not 16 <= size <= 4096:
        raise UsageError(f"size must be between 16 and 4096 pixels, not {size}")
    if smooth is not None and not 0 < smooth < math.inf:
        raise UsageError(f"smooth must be a cutoff frequency above 0 Hz, not {smooth}")
    if Path(output).exists() and Path(source).exists() and Path(output).samefile(source):
        raise UsageError(f"{output}: is the input; choose another name for the output")
    smoothing = OneEuroFilter(smooth) if smooth is not None else None
    retargeter.timings = timings = Timings()
    start = time.perf_counter()
    with ExitStack() as stack:
        video = stack.enter_context(open_video(source, size=retargeter.size))
        mattes = stack.enter_context(open_masks(masks, size=retargeter.size)) if masks is not None else None
        side = size or retargeter.size
        writer = VideoWriter(
            output,
            width=side * LAYOUTS[layout],
            height=side,
            time_base=video.time_base,
            rate=video.rate,
            codec=codec,
            crf=crf,
            audio_from=source if audio and video.has_audio else None,
            overwrite=overwrite,
        )
        try:
            with deferred_interrupt() as interrupt, writer:
                pipeline = _Pipeline(retargeter, smoothing, writer, layout, timings, interrupt)
                pipeline.run(with_masks(video, mattes), lambda done: progress and progress(done, video.length_estimate))
        except (JokrError, KeyboardInterrupt) as error:
            raise _with_remains(error, writer) from error
    return Report(writer.frames, time.perf_counter() - start, timings.milliseconds(), pipeline.first_frame_s)


class _Pipeline:
    """One thread reads, the caller's infers, one writes; each works on one frame at a time, so that none can hang."""

    def __init__(
        self,
        retargeter: Retargeter,
        smoothing: OneEuroFilter | None,
        writer: VideoWriter,
        layout: str,
        timings: Timings,
        interrupt: Interrupt,
    ) -> None:
        self.retargeter = retargeter
        self.smoothing = smoothing
        self.writer = writer
        self.side_by_side = layout == "side-by-side"
        self.timings = timings
        self.interrupt = interrupt
        self.first_frame_s: float | None = None

    def run(self, pairs: Iterator[Pair], tell: Callable[[int], None]) -> None:
        with ThreadPoolExecutor(1, "jokr-read") as reading, ThreadPoolExecutor(1, "jokr-write") as writing:
            self._pump(pairs, reading, writing, tell)

    def _pump(self, pairs: Iterator[Pair], reading: Executor, writing: Executor, tell: Callable[[int], None]) -> None:
        ahead = deque(reading.submit(self._read, pairs) for _ in range(DEPTH))
        begun: deque[Frame] = deque()
        behind: deque[Future[None]] = deque()

        def read() -> Iterator[Pair]:
            while not self.interrupt.requested and (pair := ahead.popleft().result()) is not None:
                ahead.append(reading.submit(self._read, pairs))
                begun.append(pair[0])
                yield pair

        with closing(self.retargeter.retarget_all(read(), self.smoothing)) as results:
            for done, result in enumerate(results, start=1):
                if done == 1:
                    self.first_frame_s = process_age()
                # Finished writes are looked at right away: a full disk ends the run now, not DEPTH frames later.
                while behind and (behind[0].done() or len(behind) == DEPTH):
                    behind.popleft().result()
                behind.append(writing.submit(self._write, begun.popleft(), result, behind[-1] if behind else None))
                tell(done)
        self.interrupt.raise_if_requested()
        for write in behind:
            write.result()

    def _read(self, pairs: Iterator[Pair]) -> Pair | None:
        start = time.perf_counter()
        pair = next(pairs, None)
        if pair is not None:
            self.timings.add("read", time.perf_counter() - start)
        return pair

    def _write(self, frame: Frame, result: Retargeted, last: Future[None] | None) -> None:
        if last is not None:
            last.result()  # raises where it failed: this frame would come after a gap
        with self.timings.measure("write"):
            self.writer.write(self._compose(frame, result))

    def _compose(self, frame: Frame, result: Retargeted) -> Frame:
        """The output, or input, keypoints on the dimmed input and output in a row."""
        side = self.writer.height
        image = letterbox(result.image, side)
        if not self.side_by_side:
            return image
        keypoints = draw_keypoints(letterbox(result.source, side).rgb // 2, result.keypoints)
        row = np.concatenate([letterbox(frame, side).rgb, keypoints, image.rgb], axis=1)
        return Frame(row, image.pts, image.time_base)


def _with_remains(error: JokrError | KeyboardInterrupt, writer: VideoWriter) -> JokrError | KeyboardInterrupt:
    """The same error, also saying what is left of the output."""
    if not writer.part.exists() or not writer.frames or str(writer.part) in str(error):
        return error
    kept = f"the first {writer.frames} frames are kept in {writer.part}"
    return type(error)(f"{error}; {kept}" if str(error) else kept)
