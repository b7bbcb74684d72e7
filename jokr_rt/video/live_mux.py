"""A container that is written while its pictures are made: each at its own time, coded at once, sound beside them."""

from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
from av import AudioStream, Packet, VideoFrame, VideoStream
from av.container import OutputContainer
from av.error import FFmpegError
from av.video.frame import PictureType
from av.video.reformatter import ColorRange, VideoReformatter
from numpy.typing import NDArray

from jokr_rt.errors import InputError, OutputError, UsageError
from jokr_rt.video.picture import SCALING, default_matrix
from jokr_rt.video.sound import SoundTrack, add_track

TICK = Fraction(1, 90000)
"""Seconds; what MPEG-TS and RTP count in, and MP4 can."""

_QUALITY = "20"  # constant rate factor
_NEVER = str(2**30)
# zerolatency: a picture goes in, its packet comes out. Keyframes are asked for by time, as pictures come at any rate.
_LOW_LATENCY = {"preset": "veryfast", "tune": "zerolatency", "forced-idr": "1", "g": _NEVER, "sc_threshold": "0"}
_THREADS = 2  # it shares the machine with inference
_BT709 = 1  # primaries and transfer, numbers of ITU-T H.273

# The muxer writes in order of time: a picture waits until there is sound behind it. Where there is no more sound, not
# longer than this, microseconds.
_INTERLEAVE = "200000"


@dataclass(frozen=True)
class Coding:
    """How pictures are coded, as H.264.

    width, height: pixels; an odd one gains a copy of the last column or row. rate: nominal pictures per second.
    bitrate: bits per second at most, None for constant quality. keyframe_s: seconds between keyframes.
    """

    width: int
    height: int
    rate: Fraction
    bitrate: int | None = None
    keyframe_s: float = 2.0

    def __post_init__(self) -> None:
        if self.bitrate is not None and self.bitrate < 1000:
            raise UsageError(f"the bitrate is in bits per second, at least 1000, not {self.bitrate}")
        if not 0 < self.keyframe_s < float("inf"):
            raise UsageError(f"the keyframe interval must be above 0 seconds, not {self.keyframe_s}")


class LiveMux:
    """Writes pictures and sound to `url`; connecting happens here. name: what messages call it.

    frames: pictures written so far. Raises OutputError where the file or network fails.
    """

    def __init__(
        self, url: str, kind: str, coding: Coding, sound: SoundTrack | None, options: dict[str, str], name: str
    ) -> None:
        self.frames = 0
        self._name = name
        self._coding = coding
        self._origin: Fraction | None = None
        self._keyframe_due = Fraction(0)
        self._last_sound: int | None = None
        self._reformatter = VideoReformatter()
        self._matrix = default_matrix(coding.height)
        try:
            options = {"flush_packets": "1", "max_interleave_delta": _INTERLEAVE, **options}
            self._container = av.open(url, "w", format=kind, container_options=options)
            self._pictures = _add_pictures(self._container, coding, int(self._matrix))
            self._sound: AudioStream | None = add_track(self._container, sound) if sound else None
            self._container.start_encoding()
        except (FFmpegError, OSError) as error:
            raise OutputError(f"{name}: cannot be opened ({error.strerror})") from error

    def write(self, image: NDArray[np.uint8], time_s: Fraction) -> None:
        """image: (height, width, 3) uint8 RGB. time_s: later than the last; the first one is the file's time 0."""
        if image.shape != (self._coding.height, self._coding.width, 3):
            raise InputError(f"{self._name}: a picture of shape {image.shape} does not fit, see {self._coding}")
        if self._origin is None:
            self._origin = time_s
        picture = self._yuv(image)
        picture.pts, picture.time_base = round((time_s - self._origin) / TICK), TICK
        picture.duration = round(1 / self._coding.rate / TICK)
        if time_s - self._origin >= self._keyframe_due:
            picture.pict_type = PictureType.I
            self._keyframe_due = time_s - self._origin + Fraction(self._coding.keyframe_s)
        self._mux(self._pictures.encode(picture))
        self.frames += 1

    def write_sound(self, data: bytes, time_s: Fraction, duration_s: Fraction) -> None:
        """A packet of the sound track. What lies before the first picture, or before other sound, is left out."""
        if self._sound is None or self._origin is None:
            return
        pts = round((time_s - self._origin) / TICK)
        if pts < 0 or (self._last_sound is not None and pts <= self._last_sound):
            return
        packet = Packet(data)
        packet.pts = packet.dts = self._last_sound = pts
        packet.duration, packet.time_base, packet.is_keyframe = round(duration_s / TICK), TICK, True
        packet.stream = self._sound
        self._mux([packet])

    def close(self) -> None:
        """Finish. Nothing is left open, whatever it raises."""
        try:
            self._mux(self._pictures.encode(None))
        finally:
            try:
                self._container.close()
            except (FFmpegError, OSError) as error:
                raise OutputError(f"{self._name}: cannot be finished ({error.strerror})") from error

    def _mux(self, packets: list[Packet]) -> None:
        try:
            self._container.mux(packets)
        except (FFmpegError, OSError) as error:
            raise OutputError(f"{self._name}: cannot be written ({error.strerror})") from error

    def _yuv(self, image: NDArray[np.uint8]) -> VideoFrame:
        height, width, _ = image.shape
        if height % 2 or width % 2:
            image = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), "edge")
        return self._reformatter.reformat(
            VideoFrame.from_ndarray(np.ascontiguousarray(image), "rgb24"),
            format="yuv420p",
            dst_colorspace=self._matrix,
            dst_color_range=ColorRange.MPEG,
            interpolation=SCALING,
            threads=1,
        )


def _add_pictures(container: OutputContainer, coding: Coding, matrix: int) -> VideoStream:
    bits = coding.bitrate
    # The buffer of half a second bounds how much longer a keyframe takes through the network than another picture.
    rate = {"crf": _QUALITY} if bits is None else {"b": str(bits), "maxrate": str(bits), "bufsize": str(bits // 2)}
    stream = container.add_stream("libx264", rate=coding.rate, options={**_LOW_LATENCY, **rate})
    stream.width, stream.height = coding.width + coding.width % 2, coding.height + coding.height % 2
    stream.pix_fmt = "yuv420p"
    context = stream.codec_context
    context.time_base, context.thread_count = TICK, _THREADS
    context.colorspace, context.color_range = matrix, int(ColorRange.MPEG)
    context.color_primaries = context.color_trc = _BT709
    context.open()
    return stream
