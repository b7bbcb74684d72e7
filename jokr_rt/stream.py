"""A whole video through a retargeter: decoding, inference and encoding side by side.

Memory is constant, but for the motion where that is needed as a whole.
"""

import logging
import math
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from jokr_rt.bundle import DIRECTIONS
from jokr_rt.edits import Edits, check_keypoints
from jokr_rt.errors import InputError, UsageError
from jokr_rt.frame import Frame
from jokr_rt.interrupt import Interrupt, deferred_interrupt
from jokr_rt.keypoints import OneEuroFilter, draw_keypoints
from jokr_rt.pipeline import DEPTH, Pipeline, finishing, read_ahead, timed
from jokr_rt.retarget import Retargeted, Retargeter
from jokr_rt.timing import Timings
from jokr_rt.tracks import EDITED_TIME_BASE, MAX_POINTS, Tracks, edit_tracks
from jokr_rt.video import Pair, StreamWriter, VideoSource, VideoWriter, letterbox, open_masks, open_video, with_masks

_log = logging.getLogger(__name__)

LAYOUTS = {"output": 1, "side-by-side": 3}
"""What a frame of the output shows, and how many squares that is."""

Progress = Callable[[int, int | None], None]
"""Told after every frame: frames done, and an estimate of how many there are. What it raises ends the run."""


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
    def fps(self) -> float | None:
        """Frames per second; None of fewer than wait in the pipeline: that is how long it takes to fill."""
        return self.frames / self.seconds if self.frames >= DEPTH else None


def retarget_stream(
    retargeter: Retargeter,
    source: str | Path,
    output: str | Path | BinaryIO,
    *,
    masks: str | Path | None = None,
    smooth: float | None = None,
    edits: Edits | None = None,
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
    `OneEuroFilter` on the keypoints; lower is calmer and lags more. edits: what becomes of the motion. They need all of
    it, so that the source is read first, and drawn then; `progress` counts both. layout: "output", or "side-by-side"
    for input, keypoints and output. size: side of each of these squares in pixels, as the model has it unless given.
    output: a path, or a file open for bytes, which gets Matroska, front to back.
    codec, crf, audio, overwrite: see `VideoWriter`; audio copies the source's sound, unless `edits` scale time.

    Whatever ends the run early, Ctrl-C too, leaves what was done as a playable `output`.part, and the message of a
    JokrError or KeyboardInterrupt says so. Raises UsageError, InputError, OutputError, EngineError, and
    BrokenPipeError where nobody reads `output` any more.
    """
    if smooth is not None and not 0 < smooth < math.inf:
        raise UsageError(f"smooth must be a cutoff frequency above 0 Hz, not {smooth}")
    if (
        isinstance(output, (str, Path))
        and Path(output).exists()
        and Path(source).exists()
        and Path(output).samefile(source)
    ):
        raise UsageError(f"{output}: is the input; choose another name for the output")
    is_scaled = _check_edits(retargeter, edits, smooth, layout)
    run = _Run(retargeter, size, layout, progress, passes=1 if edits is None else 2)
    with ExitStack() as stack:
        clip = stack.enter_context(_open(retargeter, source, masks))
        if is_scaled:
            sound, extras = audio and clip.video.has_audio, clip.video.has_extras
            for what, is_there in (("sound is", sound), ("chapters and other tracks are", extras)):
                if is_there:
                    _log.warning("%s: its %s left out, for the edits scale time", source, what)
        writer = run.writer(
            output,
            time_base=EDITED_TIME_BASE if is_scaled else clip.video.time_base,
            rate=clip.video.rate,
            codec=codec,
            crf=crf,
            audio_from=source if audio and clip.video.has_audio and not is_scaled else None,
            extras_from=source if clip.video.has_extras and not is_scaled else None,
            overwrite=overwrite,
        )
        with finishing(writer) as interrupt:
            if edits is None:
                run.retarget(clip, OneEuroFilter(smooth) if smooth is not None else None, writer, interrupt)
            else:
                tracks = edit_tracks(edits, run.find(clip, interrupt))
                again = stack.enter_context(_open(retargeter, source, masks)) if layout == "side-by-side" else None
                run.draw(tracks, again, writer, interrupt)
    return run.report(writer)


def find_tracks(
    retargeter: Retargeter, source: str | Path, *, masks: str | Path | None = None, progress: Progress | None = None
) -> Tracks:
    """The motion in a video, folder or sequence: what `retarget_stream` draws, which `render_stream` does of it later.

    masks, progress: as there. Raises UsageError, InputError, EngineError.
    """
    with _open(retargeter, source, masks) as clip, deferred_interrupt() as interrupt:
        return _Run(retargeter, None, "output", progress).find(clip, interrupt)


def render_stream(
    retargeter: Retargeter,
    tracks: Tracks,
    output: str | Path | BinaryIO,
    *,
    edits: Edits | None = None,
    size: int | None = None,
    codec: str | None = None,
    crf: int = 18,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Draw the target's creature in every pose of a motion, edited or not, at its time. There is no sound.

    The pictures are, to the bit before they are encoded, those of `retarget_stream` for the clip that the motion was
    found in, with the same edits, engine and mode. The rest is as there; UsageError also for a motion of another number
    of keypoints than the model's.
    """
    if tracks.keypoints.shape[1] != retargeter.config.keypoints:
        count = tracks.keypoints.shape[1]
        raise UsageError(f"the motion is of {count} keypoints, and the model has {retargeter.config.keypoints}")
    _check_edits(retargeter, edits)
    run = _Run(retargeter, size, "output", progress)
    drawn = edit_tracks(edits, tracks) if edits is not None else tracks
    writer = run.writer(
        output, time_base=drawn.time_base, rate=drawn.rate, codec=codec, crf=crf, audio_from=None, overwrite=overwrite
    )
    with finishing(writer) as interrupt:
        run.draw(drawn, None, writer, interrupt)
    return run.report(writer)


def _check_edits(
    retargeter: Retargeter, edits: Edits | None, smooth: float | None = None, layout: str = "output"
) -> bool:
    """Whether they scale time. Raises UsageError where they do not go with the rest; before any work is done."""
    if edits is None:
        return False
    check_keypoints(edits, retargeter.config.keypoints)
    if smooth is not None:
        raise UsageError("edits have a smoothing of their own; set it there, and leave smooth out")
    if edits.speed != 1 and layout == "side-by-side":
        raise UsageError(
            "the layout side-by-side needs a frame of the input for each drawn one: not where edits scale time"
        )
    return edits.speed != 1


@dataclass(frozen=True)
class _Clip:
    """An opened source. pairs: its frames with their masks; once."""

    video: VideoSource
    pairs: Iterator[Pair]


@contextmanager
def _open(retargeter: Retargeter, source: str | Path, masks: str | Path | None) -> Iterator[_Clip]:
    with ExitStack() as stack:
        video = stack.enter_context(open_video(source, size=retargeter.size))
        mattes = stack.enter_context(open_masks(masks, size=retargeter.size)) if masks is not None else None
        yield _Clip(video, with_masks(video, mattes))


@dataclass(frozen=True)
class _Posed:
    """A pose (K, 2) to draw, its time, and the frame with its mask that is shown beside it, if any is."""

    keypoints: NDArray[np.float32]
    pts: int
    pair: Pair | None


class _Run:
    """One output of retargeted or drawn frames. layout: one of `LAYOUTS`. passes: what `progress` is told of."""

    def __init__(
        self, retargeter: Retargeter, size: int | None, layout: str, progress: Progress | None, passes: int = 1
    ) -> None:
        if layout not in LAYOUTS:
            raise UsageError(f"unknown layout {layout!r}; choose {' or '.join(LAYOUTS)}")
        if size is not None and not 16 <= size <= 4096:
            raise UsageError(f"size must be between 16 and 4096 pixels, not {size}")
        self.retargeter, self.layout, self.progress, self.passes = retargeter, layout, progress, passes
        self.side = size or retargeter.size
        retargeter.timings = self.timings = Timings()
        self.first_frame_s: float | None = None
        self._found = 0
        self._familiar = retargeter.familiarity()
        self._start = time.perf_counter()

    def writer(self, output: str | Path | BinaryIO, **options: Any) -> VideoWriter:
        """options: of `VideoWriter`."""
        options |= {"width": self.side * LAYOUTS[self.layout], "height": self.side}
        if isinstance(output, (str, Path)):
            return VideoWriter(output, **options)
        return StreamWriter(output, **options)

    def retarget(self, clip: _Clip, smoothing: OneEuroFilter | None, writer: VideoWriter, interrupt: Interrupt) -> None:
        def compose(pair: Pair, result: Retargeted) -> Frame:
            self._doubt(clip, result.keypoints, result.confidence, result.source.rgb)
            return self._compose(pair[0], result.source, result.keypoints, result.image)

        def infer(pairs: Iterator[Pair]) -> Generator[Retargeted, None, None]:
            return self.retargeter.retarget_all(pairs, smoothing)

        pipeline = Pipeline(infer, compose, writer, self.timings, interrupt)
        pipeline.run(timed(clip.pairs, self.timings), lambda done: self._tell(done, clip.video.length_estimate))
        self.first_frame_s = pipeline.first_frame_s

    def find(self, clip: _Clip, interrupt: Interrupt) -> Tracks:
        """The motion in a clip, nothing written."""
        pts: list[int] = []
        found: list[tuple[NDArray[np.float32], NDArray[np.float32]]] = []
        video, longest = clip.video, MAX_POINTS // self.retargeter.config.keypoints

        def noting(pairs: Iterator[Pair]) -> Iterator[Pair]:
            for pair in pairs:
                if len(pts) == longest:
                    raise InputError(f"{video.path}: motion of more than {longest} frames is not held; cut it first")
                pts.append(pair[0].pts)
                yield pair

        with (
            closing(read_ahead(timed(clip.pairs, self.timings), interrupt)) as pairs,
            closing(self.retargeter.extract_all(noting(pairs))) as results,
        ):
            for result in results:
                self._doubt(clip, *result)
                found.append(result)
                self._tell(len(found), video.length_estimate and self.passes * video.length_estimate)
        interrupt.raise_if_requested()
        self._found = len(found)
        keypoints, confidence = (np.stack(arrays) for arrays in zip(*found, strict=True))
        domain = self.retargeter.domains[DIRECTIONS[self.retargeter.direction][0]]
        ticks = np.array(pts, np.int64)
        return Tracks(ticks, video.time_base, video.rate, keypoints, confidence, domain, self.retargeter.size)

    def draw(self, tracks: Tracks, clip: _Clip | None, writer: VideoWriter, interrupt: Interrupt) -> None:
        """clip: what is shown beside the output, if anything is."""
        before = self._found

        def compose(posed: _Posed, image: NDArray[np.uint8]) -> Frame:
            drawn = Frame(image, posed.pts, tracks.time_base)
            if posed.pair is None:
                return self._compose(drawn, drawn, posed.keypoints, drawn)
            return self._compose(posed.pair[0], self.retargeter.source(*posed.pair), posed.keypoints, drawn)

        def infer(poses: Iterator[_Posed]) -> Generator[NDArray[np.uint8], None, None]:
            return self.retargeter.draw_all(posed.keypoints for posed in poses)

        pipeline = Pipeline(infer, compose, writer, self.timings, interrupt)
        pipeline.run(_posed(tracks, clip), lambda done: self._tell(before + done, before + len(tracks)))
        self.first_frame_s = pipeline.first_frame_s

    def _doubt(self, clip: _Clip, *found: NDArray[Any]) -> None:
        """Say once that this is another creature, if it is. found: as `Familiarity.see` takes it."""
        if self._familiar is not None and self._familiar.see(*found):
            _log.warning("%s %s", clip.video.path, self._familiar.doubt)
            self._familiar = None

    def _tell(self, done: int, total: int | None) -> None:
        if self.progress:
            self.progress(done, total)

    def _compose(self, frame: Frame, source: Frame, keypoints: NDArray[np.float32], drawn: Frame) -> Frame:
        """The output, or input, keypoints on what was seen of it, dimmed, and output in a row."""
        image = letterbox(drawn, self.side)
        if self.layout == "output":
            return image
        seen = draw_keypoints(letterbox(source, self.side).rgb // 2, keypoints)
        row = np.concatenate([letterbox(frame, self.side).rgb, seen, image.rgb], axis=1)
        return Frame(row, image.pts, image.time_base)

    def report(self, writer: VideoWriter) -> Report:
        seconds = time.perf_counter() - self._start
        return Report(writer.frames, seconds, self.timings.milliseconds(), self.first_frame_s)


def _posed(tracks: Tracks, clip: _Clip | None) -> Iterator[_Posed]:
    for keypoints, pts in zip(tracks.keypoints, tracks.pts.tolist(), strict=True):
        pair = next(clip.pairs, None) if clip else None
        if clip and pair is None:
            raise InputError(f"{clip.video.path}: has fewer frames than a moment ago; is it being written?")
        yield _Posed(keypoints, pts, pair)
