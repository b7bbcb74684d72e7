"""A virtual camera: what other programs on this machine see as a webcam. Linux's v4l2loopback makes such devices."""

import os
import struct
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av import VideoFrame
from av.error import FFmpegError
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter
from numpy.typing import NDArray

from jokr_rt.errors import OutputError, UsageError
from jokr_rt.video.picture import SCALING
from jokr_rt.video.sound import SoundPacket, SoundTrack

_HELP = "make one with: sudo modprobe v4l2loopback exclusive_caps=1 card_label=JOKR (package v4l2loopback-dkms)"

# From linux/videodev2.h: VIDIOC_QUERYCAP, where struct v4l2_capability has the capabilities of the driver and of this
# device, and the bits for what can be written to, and for the second of these fields being set.
_QUERYCAP = 0x80685600
_CAPABILITY = struct.Struct("16s32s32sIII12x")
_OUTPUT, _DEVICE_CAPS = 0x00000002, 0x80000000


def check_camera(device: str) -> None:
    """Raises UsageError on a system without such devices, OutputError where `device` is none that can be written to."""
    if not sys.platform.startswith("linux"):
        raise UsageError(f"{device}: a virtual camera needs Linux and v4l2loopback; here use preview, or a stream")
    import fcntl  # Windows has none

    if not Path(device).exists():
        raise OutputError(f"{device}: there is no such device; {_HELP}")
    try:
        descriptor = os.open(device, os.O_WRONLY | os.O_NONBLOCK)
    except OSError as error:
        raise OutputError(f"{device}: cannot be opened ({error.strerror})") from error
    try:
        *_, driver, own = _CAPABILITY.unpack(fcntl.ioctl(descriptor, _QUERYCAP, bytes(_CAPABILITY.size)))
    except OSError as error:
        raise OutputError(f"{device}: is no camera; {_HELP}") from error
    finally:
        os.close(descriptor)
    if not (own if driver & _DEVICE_CAPS else driver) & _OUTPUT:
        raise OutputError(f"{device}: is a camera, which cannot be written to; {_HELP}")


class VirtualCamera:
    """Pictures written to a device such as /dev/video9. rate: nominal pictures per second."""

    def __init__(self, device: str, width: int, height: int, rate: Fraction) -> None:
        check_camera(device)
        self._device, self._size, self._rate = device, (width, height), rate
        self._convert = YuyvConverter()
        self._container: av.container.OutputContainer | None = None

    def open(self, sound: SoundTrack | None) -> None:
        """Set the device's format. Raises OutputError."""
        width, height = self._size
        try:
            self._container = av.open(self._device, "w", format="v4l2")
            self._stream = self._container.add_stream("rawvideo", rate=self._rate)
            self._stream.width, self._stream.height, self._stream.pix_fmt = width + width % 2, height, "yuyv422"
            self._stream.codec_context.time_base = 1 / self._rate
            self._container.start_encoding()
        except (FFmpegError, OSError) as error:
            raise OutputError(f"{self._device}: cannot be opened ({error.strerror})") from error
        self._frames = 0

    def write(self, image: NDArray[np.uint8], time_s: Fraction) -> None:
        """image: (height, width, 3) uint8 RGB. It is seen at once, whatever its time. Raises OutputError."""
        assert self._container is not None
        picture = self._convert(image)
        picture.pts, picture.time_base = self._frames, 1 / self._rate
        self._frames += 1
        try:
            self._container.mux(self._stream.encode(picture))
        except (FFmpegError, OSError) as error:
            raise OutputError(f"{self._device}: cannot be written ({error.strerror})") from error

    def write_sound(self, packet: SoundPacket, time_s: Fraction) -> None:
        """A camera has none."""

    def close(self) -> None:
        container, self._container = self._container, None
        if container is not None:
            container.close()

    def abort(self) -> None:
        """Nothing here waits for long."""


class YuyvConverter:
    """RGB to YUYV, as webcams have it: BT.601, limited range. An odd width gains a copy of its last column."""

    def __init__(self) -> None:
        self._reformatter = VideoReformatter()

    def __call__(self, image: NDArray[np.uint8]) -> VideoFrame:
        if image.shape[1] % 2:
            image = np.pad(image, ((0, 0), (0, 1), (0, 0)), "edge")
        return self._reformatter.reformat(
            VideoFrame.from_ndarray(np.ascontiguousarray(image), "rgb24"),
            format="yuyv422",
            dst_colorspace=Colorspace.ITU601,
            dst_color_range=ColorRange.MPEG,
            interpolation=SCALING,
            threads=1,
        )
