"""Small real clips, encoded with PyAV, whose every pixel and time is known, and what to compare them with."""

import os
import struct
import subprocess
import sys
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.stream import Disposition
from numpy.typing import NDArray

from jokr_rt.errors import JokrError
from jokr_rt.frame import Frame
from jokr_rt.video import read_video
from tests.tolerances import LEVELS

Pixels = NDArray[np.uint8]

CORNERS = {
    "top_left": (200, 40, 60),
    "top_right": (40, 160, 80),
    "bottom_left": (50, 70, 190),
    "bottom_right": (220, 210, 60),
}
"""Colour of each quarter of `picture`, so that a turned, mirrored or miscoloured picture is told apart."""

VFR_TIMES = (0, 3000, 4500, 13500, 13590, 30000, 30001, 45000, 90000, 99000)
"""Ticks of 1/90000 s: a variable frame rate that no fixed one fits."""

CODING = 1 + LEVELS
"""8-bit levels: what H.264 at crf 4 does to a flat area, and one rounding to and from YUV."""

_EXACT = 4 | 0x2000 | 0x4000 | 0x40000  # libswscale: bicubic, full chroma, accurate rounding

_MATRICES = {"bt709": 1, "bt601": 6}


def picture(width: int = 64, height: int = 48, shade: int | None = None) -> Pixels:
    """Four flat quarters in the colours of CORNERS; `shade`, 0-255, greys a square in the middle."""
    rgb = np.empty((height, width, 3), np.uint8)
    top, left = slice(0, height // 2), slice(0, width // 2)
    bottom, right = slice(height // 2, height), slice(width // 2, width)
    places = ((top, left), (top, right), (bottom, left), (bottom, right))
    for place, colour in zip(places, CORNERS.values(), strict=True):
        rgb[place] = colour
    if shade is not None:
        rgb[height * 3 // 8 : height * 5 // 8, width * 3 // 8 : width * 5 // 8] = shade
    return rgb


def video(
    path: Path,
    count: int = 10,
    *,
    width: int = 64,
    height: int = 48,
    rate: Fraction | int = 10,
    times: Sequence[int] | None = None,
    time_base: Fraction | None = None,
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    matrix: str = "bt709",
    full_range: bool = False,
    tagged: bool = True,
    rotation: int = 0,
    mirrored: bool = False,
    pixel_aspect: Fraction | None = None,
    audio: str | None = None,
    options: dict[str, str] | None = None,
    pictures: Iterable[Pixels] | None = None,
) -> Path:
    """Encode `count` pictures, brighter in the middle from one to the next, or `pictures`. Returns `path`.

    times: presentation times in ticks of `time_base`; without them one frame follows the other at `rate`.
    matrix, full_range: how RGB becomes YUV; tagged: whether the file says so.
    rotation, mirrored: display matrix, degrees counter-clockwise. audio: codec of a sine tone beside the pictures.
    """
    if pictures is None:
        pictures = (picture(width, height, 255 * index // max(1, count - 1)) for index in range(count))
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=Fraction(rate), options={"crf": "4", **(options or {})})
        stream.width, stream.height, stream.pix_fmt = width, height, pixel_format
        context = stream.codec_context
        context.time_base = time_base or 1 / Fraction(rate)
        if tagged:
            context.colorspace, context.color_range = _MATRICES[matrix], 2 if full_range else 1
        if pixel_aspect is not None:
            context.sample_aspect_ratio = pixel_aspect
        if rotation or mirrored:
            stream.set_display_rotation(rotation, hflip=mirrored)
        tone = container.add_stream(audio, rate=48000) if audio else None
        for index, rgb in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(rgb, "rgb24").reformat(
                format=pixel_format,
                dst_colorspace={"bt709": 1, "bt601": 5}[matrix],
                dst_color_range=2 if full_range else 1,
                interpolation=_EXACT,
            )
            frame.pts, frame.time_base = times[index] if times else index, context.time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if tone is not None:
            _sine(container, tone, seconds=count / Fraction(rate))
    return path


def audio_only(path: Path, codec: str = "aac", cover: Pixels | None = None) -> Path:
    """Two seconds of a sine tone; `cover` is a picture attached as the cover of a piece of music."""
    with av.open(str(path), "w") as container:
        tone = container.add_stream(codec, rate=48000)
        if cover is not None:
            stream = container.add_stream("png", rate=1)
            stream.height, stream.width = cover.shape[:2]
            stream.pix_fmt, stream.disposition = "rgb24", Disposition.attached_pic
            container.mux(stream.encode(av.VideoFrame.from_ndarray(cover, "rgb24")))
        _sine(container, tone, seconds=Fraction(2))
    return path


def _sine(container: Any, stream: Any, seconds: Fraction) -> None:
    resampler = av.AudioResampler(stream.format, stream.layout, stream.rate, frame_size=stream.frame_size or 1024)
    samples = np.sin(np.arange(int(seconds * stream.rate)) * 2 * np.pi * 440 / stream.rate).astype(np.float32) / 4
    frame = av.AudioFrame.from_ndarray(np.stack([samples, samples]), "fltp", "stereo")
    frame.sample_rate, frame.pts, frame.time_base = stream.rate, 0, Fraction(1, stream.rate)
    for piece in [*resampler.resample(frame), *resampler.resample(None)]:
        container.mux(stream.encode(piece))
    container.mux(stream.encode(None))


def resolution_change(path: Path, sizes: Sequence[tuple[int, int]] = ((64, 48), (96, 64)), count: int = 5) -> Path:
    """An MPEG transport stream whose pictures change size after `count` frames, as a broadcast may."""
    with av.open(str(path), "w", format="mpegts") as container:
        stream = container.add_stream("mpeg2video", rate=25)
        stream.width, stream.height = sizes[0]
        for part, (width, height) in enumerate(sizes):
            encoder = av.CodecContext.create("mpeg2video", "w")
            encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuv420p"
            encoder.framerate, encoder.time_base = Fraction(25), Fraction(1, 25)
            for index in range(count):
                frame = av.VideoFrame.from_ndarray(picture(width, height), "rgb24").reformat(format="yuv420p")
                frame.pts, frame.time_base = part * count + index, encoder.time_base
                for packet in encoder.encode(frame):
                    packet.stream = stream
                    container.mux(packet)
            for packet in encoder.encode(None):
                packet.stream = stream
                container.mux(packet)
    return path


def truncated(source: Path, path: Path, fraction: float) -> Path:
    """The first `fraction` of the bytes of `source`."""
    data = source.read_bytes()
    path.write_bytes(data[: int(len(data) * fraction)])
    return path


def image(path: Path, pixels: Pixels) -> Path:
    """One image file, its codec from the suffix. pixels: (H, W) grey, (H, W, 3) RGB or (H, W, 4) RGBA, uint8."""
    codec, formats = {
        ".png": ("png", ("gray", "rgb24", "rgba")),
        ".bmp": ("bmp", ("gray", "bgr24", "bgra")),
        ".jpg": ("mjpeg", ("yuvj444p", "yuvj444p", "")),
        ".webp": ("libwebp", ("bgra", "bgra", "bgra")),
        ".tiff": ("tiff", ("gray", "rgb24", "rgba")),
    }[path.suffix]
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    given, wanted = {1: ("gray", formats[0]), 3: ("rgb24", formats[1]), 4: ("rgba", formats[2])}[channels]
    encoder = av.CodecContext.create(codec, "w")
    encoder.height, encoder.width = pixels.shape[:2]
    encoder.pix_fmt, encoder.time_base = wanted, Fraction(1, 10)
    encoder.options = {"lossless": "1"} if codec == "libwebp" else {"qmin": "1", "q": "1"} if codec == "mjpeg" else {}
    frame = av.VideoFrame.from_ndarray(pixels, given).reformat(
        format=wanted, dst_colorspace=5, dst_color_range=2, interpolation=_EXACT
    )
    path.write_bytes(b"".join(bytes(packet) for packet in [*encoder.encode(frame), *encoder.encode(None)]))
    return path


def folder(path: Path, pictures: Iterable[Pixels], suffix: str = ".png") -> Path:
    """A folder of numbered images: 00000.png, 00001.png and so on."""
    path.mkdir(parents=True, exist_ok=True)
    for index, pixels in enumerate(pictures):
        image(path / f"{index:05d}{suffix}", pixels)
    return path


def noise(count: int, width: int = 160, height: int = 120) -> list[Pixels]:
    """Pictures whose every frame costs about as many bytes, so that half of a file is half of its frames."""
    random = np.random.default_rng(0)
    base = picture(width, height).astype(int)
    return [np.clip(base + random.integers(-20, 21, base.shape), 0, 255).astype(np.uint8) for _ in range(count)]


def faststart(source: Path, path: Path) -> Path:
    """The same MP4 file with its index in front, so that a cut one still opens."""
    with av.open(str(source)) as old, av.open(str(path), "w", options={"movflags": "faststart"}) as new:
        streams = {stream.index: new.add_stream_from_template(stream) for stream in old.streams}
        for packet in old.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                new.mux(packet)
    return path


def raw_h264(path: Path, count: int) -> Path:
    """H.264 without a container, hence without times."""
    return video(path, count, rate=25)


def webm_with_alpha(path: Path, count: int) -> Path:
    """A VP9 video, opaque in the middle half of each side and transparent around it."""
    rgba = np.concatenate([picture(), np.zeros((48, 64, 1), np.uint8)], axis=2)
    rgba[12:36, 16:48, 3] = 255
    with av.open(str(path), "w") as container:
        options = {"crf": "4", "deadline": "realtime", "cpu-used": "8", "auto-alt-ref": "0"}
        stream = container.add_stream("libvpx-vp9", rate=10, options=options)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuva420p"
        for _ in range(count):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(rgba, "rgba").reformat(format="yuva420p")))
        container.mux(stream.encode(None))
    return path


def with_exif_orientation(path: Path, orientation: int) -> Path:
    """Insert an EXIF block with an orientation (1-8) into a JPEG file."""
    entry = struct.pack(">HHIHH", 0x0112, 3, 1, orientation, 0)
    exif = b"Exif\0\0MM\0*" + struct.pack(">IH", 8, 1) + entry + struct.pack(">I", 0)
    data = path.read_bytes()
    path.write_bytes(data[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + data[2:])
    return path


def grey_frames(pts: Iterable[int], time_base: Fraction, size: int = 64) -> Iterator[Frame]:
    """Flat grey frames, slowly brighter, at these times. (Without a cut, so that an encoder may reorder them.)"""
    return (Frame(np.full((size, size, 3), index * 4 % 256, np.uint8), at, time_base) for index, at in enumerate(pts))


def corners(rgb: Pixels) -> dict[str, tuple[int, ...]]:
    """Colour in the middle of each quarter."""
    height, width, _ = rgb.shape
    rows, columns = (height // 4, height - 1 - height // 4), (width // 4, width - 1 - width // 4)
    places = [(row, column) for row in rows for column in columns]
    return {name: tuple(map(int, rgb[place])) for name, place in zip(CORNERS, places, strict=True)}


def assert_corners(rgb: Pixels, expected: dict[str, tuple[int, ...]], levels: int = CODING) -> None:
    found = corners(rgb)
    for name, colour in expected.items():
        assert np.abs(np.subtract(found[name], colour)).max() <= levels, f"{name}: {found[name]} is not {colour}"


def times(path: Path) -> list[Fraction]:
    """Presentation times of all frames, seconds."""
    return [frame.pts * frame.time_base for frame in read_video(path)]


def audio_packets(path: Path) -> list[tuple[bytes, Fraction, Fraction]]:
    """Data, pts and dts in seconds of the first sound track."""
    with av.open(str(path)) as container:
        found = [packet for packet in container.demux(audio=0) if packet.dts is not None]
        return [(bytes(packet), packet.pts * packet.time_base, packet.dts * packet.time_base) for packet in found]


def message_of(error: pytest.ExceptionInfo[JokrError]) -> str:
    """What a user reads: one line."""
    message = str(error.value)
    assert "\n" not in message
    return message


def run_python(code: str, folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run Python code in a folder; nothing may appear on stderr."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-c", textwrap.dedent(code), *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.stderr == ""
    return done
