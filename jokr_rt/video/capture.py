"""A live source, picture by picture: a webcam, a stream, a pipe, or a file at its own rate."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
from av import VideoFrame
from av.error import FFmpegError
from numpy.typing import NDArray

from jokr_rt.clock import Clock
from jokr_rt.errors import InputError, UsageError
from jokr_rt.frame import Frame
from jokr_rt.video.address import Address, check_address, find_address
from jokr_rt.video.connection import CaptureOptions, Connection, SourceEnded, SourceLost
from jokr_rt.video.devices import CameraMode, check_hwaccel
from jokr_rt.video.picture import Canvas, has_alpha_format
from jokr_rt.video.sound import SoundPacket, SoundTrack
from jokr_rt.video.times import Pacer, Times

__all__ = [
    "CameraMode",
    "Capture",
    "CaptureOptions",
    "Captured",
    "Grabbed",
    "SourceEnded",
    "SourceLost",
    "check_source",
    "open_capture",
]

_KEYFRAME_S = 20.0  # that data may flow before the first picture: cameras with a keyframe every 10 s are common


@dataclass(frozen=True)
class Captured:
    """A picture and when it was captured.

    captured_s: `Clock.now()` when it was decoded. connection: another number wherever the times of `frame` start anew.
    alpha: (H, W) uint8 opacity, of sources whose pictures can be transparent.
    """

    frame: Frame
    captured_s: float
    connection: int = 0
    alpha: NDArray[np.uint8] | None = None


@dataclass(frozen=True)
class Grabbed:
    """A picture that is decoded but not drawn as RGB yet, so that one which nobody takes costs little.

    draw: makes it a `Captured`, in any thread, one picture at a time; raises SourceLost where there is no way to RGB.
    """

    captured_s: float
    connection: int
    draw: Callable[[], Captured]


class Capture:
    """An open source; made by `open_capture`. All but `interrupt` is for the thread that reads.

    settings: what is in use, in words. track: of the sound, or None. is_live: false for a file, which waits when nobody
    reads it. `damaged`: see `Connection`.
    """

    def __init__(self, address: Address, options: CaptureOptions, clock: Clock) -> None:
        self._address, self._options, self._clock = address, options, clock
        self._times = Times()
        self._pacer = Pacer(clock) if options.realtime and not address.is_live else None
        self.is_live = address.is_live
        self._sounds: list[tuple[SoundPacket, int]] = []
        self._heard_until = (-1, Fraction(0))
        self._last_s = clock.now()
        self._patience_s = max(_KEYFRAME_S, options.stall_s)
        self._connect()
        try:
            picture = self._next_picture()
            self._first: Grabbed | None = self._grabbed(picture)
            self.settings = self._describe(picture, self._first.draw().frame)
        except BaseException:
            self.close()
            raise
        self._patience_s = options.stall_s

    def _connect(self) -> None:
        self._connection = Connection(self._address, self._options)
        self._pictures = self._connection.pictures()
        self._canvas = Canvas(self._connection.stream.sample_aspect_ratio or Fraction(1), self._options.letterbox)

    @property
    def damaged(self) -> int:
        return self._connection.damaged

    @property
    def track(self) -> SoundTrack | None:
        return self._connection.track

    def _describe(self, picture: VideoFrame, drawn: Frame) -> dict[str, str]:
        connection, stream, asked = self._connection, self._connection.stream, self._options.camera
        rate = stream.average_rate  # a guessed one is often the rate of fields
        height, width, _ = drawn.rgb.shape
        return {
            "source": self._address.name,
            "format": connection.format,
            "codec": f"{stream.codec_context.name} ({connection.decoder})",
            "size": _told(f"{picture.width}x{picture.height}", "x".join(map(str, asked.size)) if asked.size else None),
            "drawn": f"{width}x{height}",
            "pixel_format": picture.format.name,
            "rate": _told(_fps(rate) if rate else "as it comes", _fps(asked.rate) if asked.rate else None),
            "sound": f"{self.track.rate} Hz {self.track.layout}" if self.track else "none",
        }

    def read(self) -> Captured:
        """The next picture. Raises SourceLost, in one line, where there is none, and SourceEnded where none will be."""
        return self.grab().draw()

    def grab(self) -> Grabbed:
        """The next picture, not drawn yet. Raises as `read` does."""
        first, self._first = self._first, None
        return first or self._grabbed(self._next_picture())

    def _grabbed(self, picture: VideoFrame) -> Grabbed:
        pts, time_base = self._times.place(picture)
        if self._pacer is not None:
            self._pacer.wait(pts * time_base)
        self._last_s = captured_s = self._clock.now()
        canvas, number = self._canvas, self._times.connection

        def draw() -> Captured:
            try:
                alpha = canvas.alpha(picture) if has_alpha_format(picture) else None
                return Captured(Frame(canvas.rgb(picture), pts, time_base), captured_s, number, alpha)
            except FFmpegError as error:
                raise SourceLost(f"{self._address.name}: no way from {picture.format.name} to RGB") from error

        return Grabbed(captured_s, number, draw)

    def _next_picture(self) -> VideoFrame:
        while True:
            for picture in self._pictures:
                if picture is not None:
                    return picture
                silent_s = self._clock.now() - self._last_s
                if self.is_live and silent_s > self._patience_s:
                    raise SourceLost(f"{self._address.name}: data comes, but no picture for {silent_s:.1f} s")
            if self.is_live or self._connection.is_empty or not self._options.loop:
                raise self._connection.ended()
            self._sounds = self.take_sounds()
            self.close()
            self._times.start_again()
            self._connect()

    def take_sounds(self) -> list[tuple[SoundPacket, int]]:
        """What was heard since the last call, and the connection on whose clock its `pts_s` is."""
        sounds, self._sounds = self._sounds, []
        heard, self._connection.heard = self._connection.heard, []
        for packet in heard:
            at = self._times.connection, packet.pts_s + self._times.shift_s
            if at > self._heard_until:  # where a file begins again, its sound may overlap
                self._heard_until = at
                sounds.append((replace(packet, pts_s=at[1]), at[0]))
        return sounds

    def interrupt(self) -> None:
        """End a wait for the time of a file's next picture. For any thread."""
        if self._pacer is not None:
            self._pacer.interrupt()

    def close(self) -> None:
        self._pictures.close()
        self._connection.close()


def _fps(rate: Fraction) -> str:
    return f"{float(rate):.4g} fps"


def _told(found: str, asked: str | None) -> str:
    """What is in use, and what was asked of a webcam where its driver has chosen something else."""
    return found if asked in (None, found) else f"{found} (asked for {asked})"


def check_source(source: str, options: CaptureOptions | None = None) -> None:
    """Whatever can be known before anything starts.

    Raises UsageError for a protocol that the installed FFmpeg lacks, and for options that the source cannot have;
    InputError for a file or webcam that is not there.
    """
    options = options or CaptureOptions()
    check_hwaccel(options.hwaccel)
    address = find_address(source, options.camera, options.rtsp_transport)
    if options.camera != CameraMode() and address.kind != "camera":
        raise UsageError(f"{address.name}: size, rate and pixel format can be asked of a webcam only")
    if (options.realtime or options.loop) and address.kind != "file":
        raise UsageError(f"{address.name}: only a file can be played at its own rate or in a loop")
    check_address(address)


def open_capture(source: str, options: CaptureOptions, clock: Clock) -> Capture:
    """Open a source and wait for its first picture. Raises SourceLost, and UsageError for what is no source.

    source: `camera:0`, `camera:NAME`, `/dev/video0`, `rtsp://...`, `rtmp://...`, `http://...`, `udp://...`, `tcp://...`,
    whatever else FFmpeg has a protocol for, a named pipe, `-` for stdin, or a file.
    """
    try:
        address = find_address(source, options.camera, options.rtsp_transport)
    except InputError as error:  # a webcam that is not plugged in now
        raise SourceLost(str(error)) from error
    return Capture(address, options, clock)
