"""Writing a video: times copied from the frames, sound copied from another file, and a part file that always plays."""

import os
from collections.abc import Iterable
from contextlib import suppress
from fractions import Fraction
from itertools import chain
from pathlib import Path
from types import TracebackType

import av
from av import Packet
from av.container import OutputContainer
from av.error import FFmpegError

from jokr_rt.documents import check_output
from jokr_rt.errors import InputError, JokrError, OutputError, UsageError
from jokr_rt.frame import Frame
from jokr_rt.locks import locked_output
from jokr_rt.video.decode import FOLDER_RATE
from jokr_rt.video.encode import FORMATS, PictureEncoder, open_output
from jokr_rt.video.track_copy import TrackCopy, copy_extras


class VideoWriter:
    """Encodes frames into a video file; a context manager.

    The file is written as `PATH.part` and gets its name when the `with` block (or `close`) ends well. After an error
    the part file stays and plays: what was written is finished as an ordinary video, and even a killed process or a
    full disk leaves all but the last moments readable.

    Every frame keeps its own time. MP4 and MOV hold it exactly; Matroska and WebM round to a millisecond.

    path: .mp4, .mov, .mkv or .webm.
    width, height: of the frames, pixels. An odd one gains a column or row that repeats the last: 4:2:0 needs even.
    time_base: seconds per tick of the file, normally the source's own.
    rate: nominal frames per second; it does not move any frame.
    codec: encoder with a constant rate factor; libx264, or libvpx-vp9 for WebM, unless given.
    crf: constant rate factor, smaller is better; 18 is hard to tell from the original.
    audio_from: file whose sound is copied, packet by packet, beside the frames. extras_from: file whose subtitles,
    chapters and attachments are. See `TrackCopy`.
    overwrite: replace an existing file.

    `part` is the path of the part file, `frames` the number of frames written; after a failed write, of those kept.

    Raises OutputError if the file cannot be written, or another run is writing it, UsageError for an unknown kind of
    file or codec, InputError if `audio_from` cannot be read or a frame has another size, or a time that is not later
    than the one before, or below 0.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        width: int,
        height: int,
        time_base: Fraction,
        rate: Fraction,
        codec: str | None = None,
        crf: int = 18,
        audio_from: str | Path | None = None,
        extras_from: str | Path | None = None,
        overwrite: bool = False,
    ) -> None:
        self.path = Path(path)
        self.part = self.path.with_name(self.path.name + ".part")
        self.width, self.height, self.time_base = width, height, time_base
        self.frames = 0
        self._frame_seconds = 1 / Fraction(rate)
        self._last_pts: int | None = None
        self._whole_bytes = 0
        self._copies: list[TrackCopy] = []
        self._lock: int | None = None  # of the part file
        self._container = self._prepare(overwrite)
        self._open = True
        try:
            self._encoder = PictureEncoder(
                self._container, codec, width=width, height=height, time_base=time_base, rate=rate, crf=crf
            )
            if audio_from is not None:
                self._copies.append(TrackCopy(Path(audio_from), self._container))
            if extras_from is not None:
                copy_extras(Path(extras_from), self._container)
                self._copies.append(TrackCopy(Path(extras_from), self._container, "subtitle"))
            self._start()
        except BaseException:
            self._release()
            if self._lock is not None and self.part.exists() and not self.part.stat().st_size:
                self.part.unlink()
            self._unlock()
            raise

    def _prepare(self, overwrite: bool) -> OutputContainer:
        file_format = self._check_path(overwrite)
        self._lock = locked_output(self.part)
        return open_output(self.part, file_format, self.time_base)

    @property
    def kept(self) -> Path | None:
        """The part file, where it is left, and holds frames."""
        return self.part if self.frames and self.part.exists() else None

    def _check_path(self, overwrite: bool) -> str:
        """Name of the file's format."""
        file_format = FORMATS.get(self.path.suffix.lower())
        if file_format is None:
            raise UsageError(f"{self.path}: unknown kind of video; the name must end in {', '.join(FORMATS)}")
        check_output(self.path, overwrite)
        return file_format

    def _start(self) -> None:
        """Create the file now, so that what is wrong with it is known before any work is done."""
        try:
            self._container.start_encoding()
        except FFmpegError as error:
            if isinstance(error, OSError):
                raise OutputError(f"{self.part}: cannot be written ({error.strerror})") from error
            self._discard()  # empty: the file was opened, but its header could not be written
            raise OutputError(
                f"{self.path}: this kind of file cannot hold these pictures and their sound ({error.strerror}); "
                "write a .mkv file, or leave the sound out with --no-audio"
            ) from error

    def write(self, frame: Frame) -> None:
        """Encode one frame, at its own time, and the sound due until then."""
        where = f"{self.path}: frame {self.frames} (from 0)"
        height, width, _ = frame.rgb.shape
        if (width, height) != (self.width, self.height):
            raise InputError(f"{where} is {width} x {height} pixels, the video {self.width} x {self.height}")
        pts = round(frame.pts * frame.time_base / self.time_base)
        if pts < 0:  # such a picture would be lost (MP4), or have no time (Matroska)
            raise InputError(f"{where} is at {float(pts * self.time_base):g} s; move all times to 0 or later")
        if self._last_pts is not None and pts <= self._last_pts:
            raise InputError(f"{where} is not later than the frame before it")
        self._mux_copies(pts * self.time_base)
        self._mux(self._encoder.encode(frame.rgb, pts))
        self._last_pts = pts
        self.frames += 1

    def _mux_copies(self, until: Fraction | None) -> None:
        for copy in self._copies:
            self._mux(copy.until(until))

    def _mux(self, packets: Iterable[Packet]) -> None:
        try:
            for packet in packets:
                self._container.mux(packet)
                self._note_whole()
        except FFmpegError as error:
            raise self._failed(error, completed=self._release() is None) from error

    def _note_whole(self) -> None:
        self._whole_bytes = self.part.stat().st_size  # flush_packets: all of it is on the disk

    def _failed(self, error: FFmpegError, *, completed: bool) -> OutputError:
        """What to raise, after cutting the part file back to what is whole."""
        if not completed:
            os.truncate(self.part, self._whole_bytes)
        self.frames = _count_frames(self.part)
        kept = f"the first {self.frames} frames are in {self.part}"
        self._unlock()
        return OutputError(f"{self.path}: cannot be written any further ({error.strerror}); {kept}")

    def _release(self) -> FFmpegError | None:
        """Close everything, whatever state it is in. Returns why the file could not be completed."""
        self._open = False
        for copy in self._copies:
            copy.close()
        try:
            self._container.close()
        except FFmpegError as error:
            return error
        return None

    def _unlock(self) -> None:
        """Last of all: the part file must have its name, or be gone, before another run may have it."""
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)

    def _finish(self, audio_until: Fraction | None) -> None:
        """Write what the encoder still holds, the sound, and the index of the file."""
        try:
            self._mux(self._encoder.flush())
            self._mux_copies(audio_until)
        finally:
            if self._open and (error := self._release()) is not None:
                raise self._failed(error, completed=False) from error

    def close(self) -> None:
        """Complete the file and give it its name."""
        if not self._open:
            return
        if self._last_pts is None:
            self.abort()
            raise OutputError(f"{self.path}: there were no frames to write")
        try:
            self._finish(None)
            self._keep()
        finally:
            self._unlock()

    def _keep(self) -> None:
        os.replace(self.part, self.path)

    def _discard(self) -> None:
        self.part.unlink(missing_ok=True)

    def abort(self) -> None:
        """Stop early: complete the part file with what was written, and leave it under that name."""
        if not self._open:
            return
        if self._last_pts is None:
            self._release()
            self._discard()
        else:
            with suppress(JokrError, BrokenPipeError):  # whoever stops early has an error of his own
                self._finish(self._last_pts * self.time_base + self._frame_seconds)
        self._unlock()

    def __enter__(self) -> "VideoWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            self.abort()


def _count_frames(path: Path) -> int:
    try:
        with av.open(f"file:{path}") as container:
            return sum(1 for packet in container.demux(video=0) if packet.size)
    except FFmpegError:  # failed so early that there is nothing to play
        return 0


def write_video(
    path: str | Path,
    frames: Iterable[Frame],
    *,
    rate: Fraction | None = None,
    codec: str | None = None,
    crf: int = 18,
    audio_from: str | Path | None = None,
    extras_from: str | Path | None = None,
    overwrite: bool = False,
) -> int:
    """Write frames to a video file and return their number. Parameters and errors are those of `VideoWriter`.

    Size and time base are the first frame's; the nominal rate, unless given, follows from its distance to the second.
    """
    rest = iter(frames)
    first, second = next(rest, None), next(rest, None)
    if first is None:
        raise InputError(f"{path}: there are no frames to write")
    if rate is None and second is not None:
        rate = 1 / max(second.pts * second.time_base - first.pts * first.time_base, first.time_base)
    height, width, _ = first.rgb.shape
    with VideoWriter(
        path,
        width=width,
        height=height,
        time_base=first.time_base,
        rate=rate or FOLDER_RATE,
        codec=codec,
        crf=crf,
        audio_from=audio_from,
        extras_from=extras_from,
        overwrite=overwrite,
    ) as writer:
        for frame in chain((first,), () if second is None else (second,), rest):
            writer.write(frame)
    return writer.frames
