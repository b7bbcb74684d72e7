"""How pictures are coded: settings of containers and encoders, and RGB to YUV."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av import Packet, VideoFrame, VideoStream
from av.container import OutputContainer
from av.error import FFmpegError
from av.video.reformatter import ColorRange, VideoReformatter
from numpy.typing import NDArray

from jokr_rt.errors import UsageError
from jokr_rt.video.picture import SCALING, default_matrix

FORMATS = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm"}

# A killed process or a full disk leaves a fragmented file that plays up to its last fragment; closing turns it into
# an ordinary one. Without delay_moov the first time shifts to 0.
_MP4 = {"movflags": "hybrid_fragmented+delay_moov", "frag_duration": "200000"}  # microseconds
# Without avoid_negative_ts, sound that starts before 0, as AAC does, would move the pictures.
_MATROSKA = {"cluster_time_limit": "200", "avoid_negative_ts": "disabled"}  # milliseconds
_CONTAINER_OPTIONS = {"mp4": _MP4, "mov": _MP4, "matroska": _MATROSKA, "webm": _MATROSKA}

_DEFAULT_CODECS = {"webm": "libvpx-vp9"}
_CODEC_OPTIONS = {
    "libx264": {"preset": "faster"},  # half the time of its default, for files as large and 0.2 dB less
    "libx265": {"x265-params": "log-level=none"},  # it would write to stderr by itself
    "libvpx-vp9": {"cpu-used": "4", "row-mt": "1"},  # a fraction of the time of its default, nearly as good
}

_BT709 = 1  # primaries and transfer, numbers of ITU-T H.273


def open_output(path: Path, file_format: str, time_base: Fraction) -> OutputContainer:
    """Prepare a container; its file appears when encoding starts. time_base: ticks in which times stay exact."""
    options = {"flush_packets": "1", **_CONTAINER_OPTIONS[file_format]}
    if file_format in ("mp4", "mov"):
        # The time of the first frame is kept in ticks of the movie: as fine as the track's, not the usual millisecond.
        scale = time_base.denominator
        while scale < 10_000:
            scale *= 2
        options["movie_timescale"] = str(scale)
    return av.open(f"file:{path}", "w", format=file_format, container_options=options)


def open_stream(file: object) -> OutputContainer:
    """Prepare Matroska for what can be written from front to back only. file: has `write`, for bytes."""
    options = {"flush_packets": "1", **_CONTAINER_OPTIONS["matroska"]}
    return av.open(file, "w", format="matroska", container_options=options)


class PictureEncoder:
    """Codes RGB arrays as the pictures of `container`, 4:2:0, each at its own time.

    codec: an encoder with a constant rate factor, `crf`; None for libx264, or libvpx-vp9 in WebM.
    Raises UsageError if there is no such encoder, or it does not take these settings.
    """

    def __init__(
        self,
        container: OutputContainer,
        codec: str | None,
        *,
        width: int,
        height: int,
        time_base: Fraction,
        rate: Fraction,
        crf: int,
    ) -> None:
        codec = codec or _DEFAULT_CODECS.get(container.format.name, "libx264")
        # So that players which ignore the tag guess right.
        self._matrix = default_matrix(height)
        self._reformatter = VideoReformatter()
        self._time_base = time_base
        self._duration = max(1, round(1 / (rate * time_base)))
        try:
            stream = container.add_stream(codec, rate=rate, options={"crf": str(crf), **_CODEC_OPTIONS.get(codec, {})})
            if not isinstance(stream, VideoStream):
                raise ValueError
        except (TypeError, ValueError) as error:  # PyAV's UnknownCodecError is a ValueError
            message = f"{codec} is not a video codec, or does not fit into a {container.format.name} file"
            raise UsageError(message) from error
        self._stream = stream
        stream.width, stream.height, stream.pix_fmt = width + width % 2, height + height % 2, "yuv420p"
        context = stream.codec_context
        # The source's own ticks: 1/90000 s is not exact for all of them (1/1024 s, 1/48000 s).
        context.time_base = time_base
        # With B-frames a fragmented MP4 that is closed loses its last frame: FFmpeg 8 takes the end of the last
        # fragment for the end of the video, though a reordered frame before it is shown later. They add delay, too.
        context.max_b_frames = 0
        context.colorspace, context.color_range = int(self._matrix), int(ColorRange.MPEG)
        context.color_primaries = context.color_trc = _BT709
        try:
            context.open()
        except FFmpegError as error:
            raise UsageError(
                f"{codec} does not take {width} x {height} pixels at crf {crf} ({error.strerror})"
            ) from error
        if "crf" in context.options:  # left over: the encoder does not know it
            raise UsageError(f"{codec} has no constant rate factor; try libx264, libx265 or libvpx-vp9")

    def encode(self, rgb: NDArray[np.uint8], pts: int) -> Iterator[Packet]:
        """Packets that are ready after this picture, (H, W, 3) uint8. An odd side gains a copy of its last line."""
        height, width, _ = rgb.shape
        if height % 2 or width % 2:
            rgb = np.pad(rgb, ((0, height % 2), (0, width % 2), (0, 0)), "edge")
        picture = self._reformatter.reformat(
            VideoFrame.from_numpy_buffer(np.ascontiguousarray(rgb), "rgb24"),
            format="yuv420p",
            dst_colorspace=self._matrix,
            dst_color_range=ColorRange.MPEG,
            interpolation=SCALING,
            threads=1,
        )
        picture.pts, picture.time_base, picture.duration = pts, self._time_base, self._duration
        return self._stream.encode_lazy(picture)

    def flush(self) -> Iterator[Packet]:
        """Packets that the encoder still holds."""
        return self._stream.encode_lazy(None)
