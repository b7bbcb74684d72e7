"""Decoded pictures of a video file, or of image files in order. Damage ends them with an InputError."""

import os
import re
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import IO

import av
from av import VideoCodecContext, VideoFrame, VideoStream
from av.container import InputContainer
from av.error import FFmpegError
from av.stream import AttachmentStream, Disposition, Stream

from jokr_rt.errors import InputError, UsageError
from jokr_rt.video import exif

FOLDER_RATE = Fraction(10)
"""Frames per second of image files, unless the caller says otherwise."""

_JPEG_SUFFIXES = frozenset({".jpg", ".jpeg"})
_IMAGE_FORMATS = frozenset({"image2", "jpeg_pipe", "png_pipe", "webp_pipe"})
_IMAGE_SUFFIXES = _JPEG_SUFFIXES | {".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm"}
_PATTERN = re.compile(r"(?P<head>[^%]*)%(?P<padded>0?)(?P<digits>\d*)d(?P<tail>[^%]*)")

# FFmpeg's own VP8 and VP9 decoders ignore the alpha channel of a WebM file.
_ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}


# A playlist or a script of FFmpeg's names other files, which it would read; these formats hold all of their data.
_SELF_CONTAINED = "mov,matroska,webm,avi,mpegts,png_pipe,jpeg_pipe,webp_pipe"


def open_input(path: Path, max_pixels: int | None = None) -> InputContainer:
    """Open a media file. Raises InputError if it is missing, empty or in no known format.

    max_pixels: of one picture, for a stranger's file: that must be a common container or picture, which refers to
    nothing else.
    """
    if not path.exists():
        raise InputError(f"{path}: there is no such file or folder")
    if path.is_file() and path.stat().st_size == 0:
        raise InputError(f"{path}: the file is empty")
    allowed = {"format_whitelist": _SELF_CONTAINED} if max_pixels else {}
    decoding = {"max_pixels": str(max_pixels)} if max_pixels else {}
    try:
        # `file:` keeps a name such as `12:30.mp4` from being taken for a network address; the whitelist keeps a
        # playlist from fetching anything that is not on this disk.
        return av.open(f"file:{path}", container_options={"protocol_whitelist": "file", **allowed}, options=decoding)
    except (FFmpegError, OSError) as error:
        raise InputError(f"{path}: not a video or image that can be read, or cut off ({error.strerror})") from error


def clock_start(container: InputContainer) -> Fraction:
    """Where our clock starts on the file's, seconds: at 0, but in a transport stream, whose clock started long ago, and
    in a file whose pictures start before 0, where they start. Nothing that we write holds times below 0."""
    if container.format.name == "mpegts" and container.start_time is not None:
        return Fraction(container.start_time, av.time_base)
    starts = [Fraction((video.start_time or 0) * (video.time_base or 0)) for video in container.streams.video]
    return min([Fraction(0), *starts])


def is_attached(stream: Stream) -> bool:
    """Whether it is a file within the file, such as a font, or a picture, which is a video stream to FFmpeg."""
    is_picture = isinstance(stream, VideoStream) and bool(stream.disposition & Disposition.attached_pic)
    return is_picture or isinstance(stream, AttachmentStream)


class FileDecoder:
    """Pictures of a video file.

    rate: average frames per second. time_base: seconds per tick of a picture's pts.
    pixel_aspect: width / height of a stored pixel. max_pixels: see `open_input`; larger pictures are not decoded.
    """

    def __init__(self, path: Path, max_pixels: int | None = None) -> None:
        self._path = path
        self._max_pixels = max_pixels
        self._container = open_input(path, max_pixels)
        try:
            self._stream = stream = self._choose_stream()
            self._codec = self._choose_codec()
        except BaseException:
            self._container.close()
            raise
        self.time_base = stream.time_base or Fraction(1, 90000)
        self.rate = stream.average_rate or stream.guessed_rate or Fraction(25)
        self.pixel_aspect = stream.sample_aspect_ratio or Fraction(1)
        self.has_audio = bool(self._container.streams.audio)
        others = (other.type != "audio" and other != stream for other in self._container.streams)
        self.has_extras = bool(self._container.chapters()) or any(others)
        self._start = round(clock_start(self._container) / self.time_base)
        self._duration = self._declared_duration()
        self.length_estimate = stream.frames or (round(self._duration * self.rate) if self._duration else None)

    def _choose_stream(self) -> VideoStream:
        streams = self._container.streams
        stream = streams.best("video")
        # The cover of a piece of music is a video stream of one picture.
        if not isinstance(stream, VideoStream) or is_attached(stream):
            kinds = ", ".join(sorted({other.type for other in streams} - {"video"})) or "other data"
            raise InputError(f"{self._path}: there is no video in this file, only {kinds}")
        if stream.codec_context is None:
            raise InputError(f"{self._path}: no decoder for its video; convert the file to H.264 first")
        return stream

    def _choose_codec(self) -> VideoCodecContext:
        codec = self._stream.codec_context
        if self._stream.metadata.get("alpha_mode") == "1" and codec.name in _ALPHA_DECODERS:
            codec = av.Codec(_ALPHA_DECODERS[codec.name], "r").create("video")
        codec.thread_type = "AUTO"
        if self._max_pixels:
            if codec.width == 0:  # nothing but a picture tells its size, and that was not decoded
                limit = f"{self._max_pixels:,} pixels"
                raise InputError(f"{self._path}: cannot be decoded, or has more than {limit}; make it smaller")
            if codec.width * codec.height > self._max_pixels:
                size = f"{codec.width} x {codec.height} pixels"
                raise InputError(
                    f"{self._path}: its pictures have {size}, over {self._max_pixels:,}; make them smaller"
                )
            codec.options = {"max_pixels": str(self._max_pixels)}  # of a picture that grows on the way
        return codec

    def _declared_duration(self) -> Fraction | None:
        """Seconds of video that the file says it has."""
        if self._stream.duration and self._stream.time_base:
            return self._stream.duration * self._stream.time_base
        for key, value in self._stream.metadata.items():
            if key.startswith("DURATION") and (clock := re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d+)?)", value)):
                return int(clock[1]) * 3600 + int(clock[2]) * 60 + Fraction(clock[3])
        if self._container.duration and len(self._container.streams) == 1:
            return Fraction(self._container.duration, av.time_base)
        return None

    def pictures(self) -> Iterator[VideoFrame]:
        """The pictures in the order they are shown. Raises InputError where the file is damaged or cut off."""
        is_image = self._container.format.name in _IMAGE_FORMATS and self._path.is_file()
        data = self._path.read_bytes() if is_image else b""
        if self._codec.name == "mjpeg" and is_image and not _is_whole_jpeg(data):
            raise InputError(f"{self._path}: this image is cut off; replace it")
        orientation = exif.orientation(data)
        damage: str | None = None
        end = Fraction(0)
        # AVI has the times of its chunks alone, in the order of decoding: the first picture shown is due at the first.
        due: deque[int | None] | None = deque() if self._container.format.name == "avi" else None
        try:
            for packet in self._container.demux(self._stream):
                if due is not None and packet.size:
                    due.append(packet.dts)
                # In a transport stream that is a gap in the broadcast: the pictures tell whether it did harm.
                if packet.is_corrupt and self._container.format.name != "mpegts":
                    damage = "incomplete data"
                    break
                for picture in self._codec.decode(packet):
                    picture.opaque = orientation
                    if due is not None:
                        picture.pts = due.popleft() if due else None
                    end = self._end(self._on_our_clock(picture))
                    yield picture
        except FFmpegError as error:
            damage = error.strerror or "unreadable data"
        if damage is not None:
            with suppress(FFmpegError):
                for picture in self._codec.decode(None):
                    end = self._end(self._on_our_clock(picture))
                    yield picture
            raise InputError(f"{self._path}: damaged or cut off at {float(end):.2f} s ({damage}); copy the file again")
        if self._is_short(end):
            raise InputError(f"{self._path}: cut off, the video ends at {float(end):.2f} s; copy the file again")

    def _on_our_clock(self, picture: VideoFrame) -> VideoFrame:
        picture.pts = None if picture.pts is None else picture.pts - self._start
        return picture

    def _end(self, picture: VideoFrame) -> Fraction:
        """When the next picture is due, seconds."""
        return (picture.pts or 0) * self.time_base + max(picture.duration * self.time_base, 1 / self.rate)

    def _is_short(self, end: Fraction) -> bool:
        """Whether the video ended early without an error: by its index (MP4), its size (Matroska), or its length (AVI).

        A length that Matroska's tags tell is no proof: they may be those of another file. Other formats have nothing.
        """
        kind = self._container.format.name
        if kind.startswith("mov"):
            size = self._path.stat().st_size
            return any(entry.pos + entry.size > size for entry in self._stream.index_entries)
        if kind.startswith("matroska"):
            return _is_cut_off_matroska(self._path)
        declared = self._duration
        return kind == "avi" and declared is not None and declared - end > Fraction(1, 4)

    def where(self, index: int) -> str:
        """Picture number `index`, for a message."""
        return f"{self._path}: frame {index} (from 0)"

    def close(self) -> None:
        self._container.close()


class ImageDecoder:
    """Pictures of image files, one file a picture, at a fixed rate."""

    has_audio = has_extras = False
    pixel_aspect = Fraction(1)

    def __init__(self, paths: list[Path], rate: Fraction) -> None:
        self._paths = paths
        self.rate = rate
        self.time_base = 1 / rate
        self.length_estimate = len(paths)

    def pictures(self) -> Iterator[VideoFrame]:
        """One picture for each file, in order. Raises InputError at a file that is not an image."""
        for index, path in enumerate(self._paths):
            with open_input(path) as container:
                try:
                    picture = next(container.decode(video=0))
                except (FFmpegError, IndexError, StopIteration) as error:
                    raise InputError(f"{path}: this image cannot be decoded; replace it") from error
            data = path.read_bytes()
            if path.suffix.lower() in _JPEG_SUFFIXES and not _is_whole_jpeg(data):
                raise InputError(f"{path}: this image is cut off; replace it")
            picture.pts, picture.opaque = index, exif.orientation(data)
            yield picture

    def where(self, index: int) -> str:
        """Picture number `index`, for a message."""
        return str(self._paths[index])

    def close(self) -> None:
        """Nothing stays open between two images."""


def _is_whole_jpeg(data: bytes) -> bool:
    """Whether its end marker follows its last scan; the decoder fills what is missing with grey and says nothing."""
    return data.rfind(b"\xff\xd9") > data.rfind(b"\xff\xda")


def _is_cut_off_matroska(path: Path) -> bool:
    """Whether its Segment is longer than the file (RFC 9559, 4.5): not, where the length was not known in advance."""
    with path.open("rb") as file:
        _, header = _ebml_number(file, keep_marker=True), _ebml_number(file)
        file.seek(header, os.SEEK_CUR)
        is_segment = _ebml_number(file, keep_marker=True) == 0x18538067
        size = _ebml_number(file)
        unknown = (size + 1).bit_length() > 7 and size & (size + 1) == 0  # all ones, of 7 bits or their multiple
        return is_segment and not unknown and file.tell() + size > path.stat().st_size


def _ebml_number(file: IO[bytes], keep_marker: bool = False) -> int:
    """A variable-length number (RFC 8794, 4): the zeros before its first one tell how many bytes follow."""
    first = int.from_bytes(file.read(1), "big")
    more = 8 - first.bit_length()
    value = first if keep_marker else first & (0x7F >> more)
    return int.from_bytes(value.to_bytes(1, "big") + file.read(more), "big")


def open_decoder(path: Path, rate: Fraction | None, max_pixels: int | None = None) -> FileDecoder | ImageDecoder:
    """Choose by what `path` is: a folder, a printf pattern such as `%05d.png`, or a video file.

    rate: frames per second of images, FOLDER_RATE unless given; a video has its own. max_pixels: of a stranger's video,
    see `open_input`.
    """
    if rate is not None and rate <= 0:
        raise UsageError(f"the frame rate must be positive, not {rate}")
    if path.is_dir():
        return ImageDecoder(_folder(path), rate or FOLDER_RATE)
    if not path.exists() and (pattern := _PATTERN.fullmatch(path.name)):
        return ImageDecoder(_sequence(path, pattern), rate or FOLDER_RATE)
    if rate is not None:
        raise UsageError(f"{path}: a video has its own frame rate; give one only for a folder of frames")
    return FileDecoder(path, max_pixels)


def _folder(folder: Path) -> list[Path]:
    """Images of a folder in natural order: frame2 before frame10."""
    images = [path for path in folder.iterdir() if path.suffix.lower() in _IMAGE_SUFFIXES and path.name[0] != "."]
    if not images:
        raise InputError(f"{folder}: no frames in this folder; it needs images such as 00000.png")
    return sorted(images, key=lambda path: [part.zfill(20) for part in re.split(r"(\d+)", path.name)])


def _sequence(path: Path, pattern: re.Match[str]) -> list[Path]:
    """Files that the pattern names, in the order of their numbers."""
    digits = rf"\d{{{pattern['digits'] or 1},}}" if pattern["padded"] else r"\d+"
    name = re.compile(f"{re.escape(pattern['head'])}({digits}){re.escape(pattern['tail'])}")
    files = path.parent.iterdir() if path.parent.is_dir() else ()
    numbered = {int(match[1]): file for file in files if (match := name.fullmatch(file.name))}
    if not numbered:
        raise InputError(f"{path}: no file fits this pattern; check the folder and the number of digits")
    return [numbered[number] for number in sorted(numbered)]
