"""Webcams by the names that each system has for them, and hardware that decodes."""

import logging
import re
import sys
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
from av import VideoCodecContext, VideoStream
from av.codec.hwaccel import HWAccel, hwdevices_available
from av.device import enumerate_input_devices
from av.error import FFmpegError

from jokr_rt.errors import InputError, UsageError

_log = logging.getLogger(__name__)

_FORMATS = {"linux": "v4l2", "darwin": "avfoundation", "win32": "dshow"}
_COMPRESSED = {"mjpeg", "h264", "hevc"}  # what DirectShow calls a codec and not a pixel format


@dataclass(frozen=True)
class CameraMode:
    """What is asked of a webcam; None leaves it to the driver.

    size: (width, height), pixels. rate: pictures per second. pixel_format: "mjpeg", "yuyv422" and the like; MJPEG is
    what most cameras need for more than a few pictures a second at full size.
    """

    size: tuple[int, int] | None = None
    rate: Fraction | None = None
    pixel_format: str | None = None

    def __post_init__(self) -> None:
        if self.size is not None and min(self.size) < 1:
            raise UsageError(f"a camera's size must be positive, not {self.size[0]}x{self.size[1]}")
        if self.rate is not None and self.rate <= 0:
            raise UsageError(f"a camera's rate must be positive, not {self.rate}")


def camera_input(name: str, mode: CameraMode, system: str = sys.platform) -> tuple[str, str, dict[str, str]]:
    """(file name, format, options) with which FFmpeg opens a webcam on a system, `sys.platform`.

    name: a number, the camera's own name, or on Linux its device file. Raises UsageError on other systems, and
    InputError for a number that DirectShow does not have.
    """
    if system not in _FORMATS:
        raise UsageError(f"camera:{name}: no webcams on this system ({system}); send its picture over a network")
    kind = _FORMATS[system]
    options = {}
    if mode.size is not None:
        options["video_size"] = f"{mode.size[0]}x{mode.size[1]}"
    if mode.rate is not None:
        options["framerate"] = str(mode.rate)
    if mode.pixel_format is not None:
        options[_format_option(kind, mode.pixel_format)] = mode.pixel_format
    if kind == "dshow":
        options["rtbufsize"] = "64M"  # its own 3 MB do not hold one raw 1080p picture
        return f"video={_nth_name(kind, int(name)) if name.isdecimal() else name}", kind, options
    if kind == "avfoundation":
        return f"{name}:none", kind, options
    return _device_file(name), kind, options


def _format_option(kind: str, pixel_format: str) -> str:
    if kind == "v4l2":
        return "input_format"
    return "vcodec" if kind == "dshow" and pixel_format in _COMPRESSED else "pixel_format"


def _device_file(name: str) -> str:
    """Of a camera's number, its name as the kernel knows it, or the file itself."""
    if name.isdecimal():
        return f"/dev/video{name}"
    for device in _v4l2_devices():
        if device[1] == name:
            return device[0]
    return name


def _v4l2_devices() -> list[tuple[str, str]]:
    """(device file, name) of every video device of this kernel."""
    folders = sorted(
        Path("/sys/class/video4linux").glob("video*"), key=lambda path: int(re.sub(r"\D", "", path.name) or 0)
    )
    return [(f"/dev/{folder.name}", (folder / "name").read_text().strip()) for folder in folders]


def _nth_name(kind: str, number: int) -> str:
    names = [name for name, _ in _enumerated(kind)]
    if number >= len(names):
        raise InputError(f"camera:{number}: there is no such webcam; there {_listed(names)}")
    return names[number]


def _enumerated(kind: str) -> list[tuple[str, str]]:
    try:
        return [(each.name, each.description) for each in enumerate_input_devices(kind) if "video" in each.media_types]
    except (FFmpegError, ValueError):  # ValueError: this FFmpeg was built without that kind of device
        return []


def list_cameras(system: str = sys.platform) -> list[tuple[str, str]]:
    """(name to open it by, description) of the webcams that the system tells of."""
    return _v4l2_devices() if system == "linux" else _enumerated(_FORMATS.get(system, ""))


def _listed(names: list[str]) -> str:
    return f"are {', '.join(names)}" if names else "is none on this machine"


def check_camera(name: str, file: str, kind: str) -> None:
    """Raises InputError if a device file is not there, UsageError if this FFmpeg cannot read webcams.

    name: as it was typed. file, kind: from `camera_input`.
    """
    try:
        av.ContainerFormat(kind, "r")
    except ValueError:
        raise UsageError(f"{name}: the installed FFmpeg reads no webcams ({kind} is missing)") from None
    if kind == "v4l2" and not Path(file).exists():
        names = [f"{each} ({text})" for each, text in list_cameras()]
        raise InputError(f"{name}: there is no such webcam; there {_listed(names)}")


def check_hwaccel(choice: str) -> None:
    """`choice`: "none", "auto" or a kind of device. Raises UsageError if the installed FFmpeg has no such kind."""
    known = ["none", "auto", *hwdevices_available()]
    if choice not in known:
        raise UsageError(f"unknown hwaccel {choice!r}; the installed FFmpeg has {', '.join(known)}")


def hardware_decoder(stream: VideoStream, choice: str) -> tuple[VideoCodecContext | None, str]:
    """A decoder on the first device that takes the stream's codec, and the device's kind; or None, and why.

    It is separate from the stream's own, which stays to fall back on. It raises at the first packet if the device does
    not know the stream's profile.
    """
    software = stream.codec_context
    kinds = hwdevices_available() if choice == "auto" else [choice]
    for kind in kinds:
        try:
            accelerator = HWAccel(kind, allow_software_fallback=False)
            decoder = av.CodecContext.create(software.codec.canonical_name, "r", accelerator)
        except (FFmpegError, OSError, RuntimeError, ValueError) as error:
            _log.debug("hwaccel %s: %s", kind, error)
            continue
        if isinstance(decoder, VideoCodecContext) and decoder.is_hwaccel:
            decoder.extradata = software.extradata
            decoder.width, decoder.height = software.width, software.height
            return decoder, kind
    return None, f"no hardware here decodes {software.name}; tried {', '.join(kinds) or 'none'}"
