"""Readers: a video file, a folder of frames or a numbered image sequence, as upright RGB frames or as masks."""

import logging
from collections.abc import Generator, Iterator
from fractions import Fraction
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Generic, TypeVar

import numpy as np
from av import VideoFrame
from av.error import FFmpegError
from numpy.typing import NDArray

from jokr_rt.errors import InputError
from jokr_rt.frame import Frame
from jokr_rt.video.decode import ImageDecoder, open_decoder
from jokr_rt.video.hdr import TRANSFERS
from jokr_rt.video.picture import Canvas, has_alpha_format

_log = logging.getLogger(__name__)
_Item = TypeVar("_Item")
_Self = TypeVar("_Self", bound="_Source")


class _Source(Iterator[_Item], Generic[_Item]):
    """What videos and masks have in common: one pass over the pictures of a path, in constant memory.

    path: what was opened.
    width, height: size of the arrays, pixels: upright, with square pixels, or size x size.
    upright_size: (width, height) of the picture last read, before any letterbox.
    rate: average frames per second. time_base: seconds per tick of `Frame.pts`.
    length_estimate: number of frames as far as it is known without decoding, or None.
    has_audio, has_extras: whether the file also holds sound; chapters, attachments or tracks of any other kind.
    has_alpha: whether part of the first picture is transparent.
    """

    def __init__(
        self, path: str | Path, size: int | None, rate: Fraction | None, max_pixels: int | None = None
    ) -> None:
        self.path = Path(path)
        self._decoder = decoder = open_decoder(self.path, rate, max_pixels)
        self.rate: Fraction = decoder.rate
        self.time_base: Fraction = decoder.time_base
        self.has_audio: bool = decoder.has_audio
        self.has_extras: bool = decoder.has_extras
        self.length_estimate: int | None = decoder.length_estimate
        # Images of many sizes, such as crops around an object, can share a letterbox; a video has one size.
        self._mixed_sizes = size is not None and isinstance(decoder, ImageDecoder)
        try:
            pictures = decoder.pictures()
            first = next(pictures, None)
            if first is None:
                raise InputError(f"{path}: the file holds no picture; check that it is complete")
            self._canvas = Canvas(decoder.pixel_aspect, size)
            self.upright_size = self._canvas.upright_size(first)
            self.width, self.height = (size, size) if size else self.upright_size
            alone = Canvas(decoder.pixel_aspect, None)  # a letterbox's bars are transparent, whatever the picture is
            self.has_alpha: bool = has_alpha_format(first) and bool(alone.alpha(first).min() < 255)
        except BaseException:
            decoder.close()
            raise
        if first.color_trc in TRANSFERS:
            kind = TRANSFERS[first.color_trc]
            _log.warning("%s: HDR (%s) is shown as SDR: white is 203 nits, brighter light is rolled off", path, kind)
        self._items = self._read(chain((first,), pictures))

    def _convert(self, picture: VideoFrame, pts: int) -> _Item:
        raise NotImplementedError

    def _read(self, pictures: Iterator[VideoFrame]) -> Generator[_Item, None, None]:
        clock = _Clock(self.path, max(1, round(1 / (self.rate * self.time_base))))
        for index, picture in enumerate(pictures):
            where = self._decoder.where(index)
            if picture.is_corrupt:
                raise InputError(f"{where} is damaged; copy the file again, or repair it with a new encoding")
            upright = self._canvas.upright_size(picture)
            if upright != self.upright_size and not self._mixed_sizes:
                (width, height), (old_width, old_height) = upright, self.upright_size
                raise InputError(
                    f"{where} is {width} x {height} pixels, those before it are {old_width} x {old_height}; "
                    "bring all frames to one size first"
                )
            self.upright_size = upright
            try:
                item = self._convert(picture, clock.time(index, picture.pts))
            except FFmpegError as error:
                raise InputError(f"{where}: no way from {picture.format.name} to RGB ({error.strerror})") from error
            yield item

    def __next__(self) -> _Item:
        return next(self._items)

    def close(self) -> None:
        """Close the file; iteration then ends."""
        self._items.close()
        self._decoder.close()

    def __enter__(self: _Self) -> _Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Clock:
    """Presentation times that only go forward.

    A picture without a time follows the one before it after one nominal frame, and one with the same time after one
    tick. Where times go back (two recordings joined into one file), all later ones are moved behind by one amount.
    The first such correction is logged.
    """

    def __init__(self, path: Path, frame_ticks: int) -> None:
        self._path = path
        self._frame_ticks = frame_ticks
        self._last: int | None = None
        self._shift = 0
        self._warned = False

    def time(self, index: int, pts: int | None) -> int:
        """Time of picture number `index`, whose file says `pts`; in ticks."""
        expected = 0 if self._last is None else self._last + self._frame_ticks
        time = expected if pts is None else pts + self._shift
        if pts is None:
            self._warn(index, "no time; it is placed one frame after the one before")
        if self._last is not None and time == self._last:
            self._warn(index, "the time of the one before; it is placed just after it")
            time += 1
        elif self._last is not None and time < self._last:
            self._warn(index, "an earlier time than the one before; it and all after it are moved behind it")
            self._shift += expected - time
            time = expected
        self._last = time
        return time

    def _warn(self, index: int, what: str) -> None:
        if not self._warned:
            _log.warning("%s: frame %d (from 0) has %s", self._path, index, what)
        self._warned = True


class VideoSource(_Source[Frame]):
    """Frames of a video, a folder or an image sequence; an iterator and context manager made by `open_video`."""

    def _convert(self, picture: VideoFrame, pts: int) -> Frame:
        return Frame(self._canvas.rgb(picture), pts, self.time_base)


class MaskSource(_Source[NDArray[np.bool_]]):
    """Masks, (H, W) bool, True on the object; an iterator and context manager made by `open_masks`."""

    _is_judged = False

    def _convert(self, picture: VideoFrame, pts: int) -> NDArray[np.bool_]:
        opacity = self._canvas.alpha(picture) if self.has_alpha else self._canvas.grey(picture)
        if not self._is_judged and (brightest := int(opacity.max())) > 0:
            self._is_judged = True
            if brightest < 128:
                _log.warning(
                    "%s: a mask is nowhere brighter than %d of 255 and so shows no object; make the object white",
                    self.path,
                    brightest,
                )
        return opacity >= 128


def open_video(
    path: str | Path, *, size: int | None = None, rate: Fraction | None = None, max_pixels: int | None = None
) -> VideoSource:
    """Open a video file, a folder of images (in natural order) or a pattern such as `shots/%05d.png`.

    Frames come upright, with square pixels and in full-range RGB, whatever the file's rotation, pixel shape, bit
    depth, matrix and range. Iterating decodes as it goes; use it in a `with` statement.

    size: letterbox every frame into size x size pixels; None keeps the video's size.
    rate: frames per second of images, 10 unless given; a video has its own.
    max_pixels: of a picture, for a video (or one PNG, JPEG or WebP) from a stranger: a larger one is refused before it
    is decoded, and so is a kind of file that could name others to be read, such as a playlist.

    Raises InputError at once if the input is missing, empty, not a video or without pictures, and while iterating
    (after every frame up to there) if it is damaged, cut off or changes its size. Raises UsageError for a rate that
    cannot be meant.
    """
    return VideoSource(path, size, rate, max_pixels)


def open_masks(path: str | Path, *, size: int | None = None, max_pixels: int | None = None) -> MaskSource:
    """Open masks: a video, folder or pattern as for `open_video`, each picture a (H, W) bool array, True = object.

    If the first picture is partly transparent the masks are the alpha channel, otherwise the brightness; the object
    is where it is at least half. With `size` they are letterboxed as the frames are, with False in the bars.
    max_pixels, and what it raises: as for `open_video`.
    """
    return MaskSource(path, size, None, max_pixels)


def read_video(path: str | Path, *, size: int | None = None, rate: Fraction | None = None) -> Iterator[Frame]:
    """Yield the frames of `open_video(path, size=size, rate=rate)` and close the file at the end."""
    with open_video(path, size=size, rate=rate) as source:
        yield from source
