"""Sinks by their names: `rec.mp4`, `rtmp://...`, `/dev/video9`, `-`, `preview` and so on."""

import os
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from jokr_rt.clock import Clock
from jokr_rt.errors import OutputError, UsageError
from jokr_rt.live.preview import PORT, Preview
from jokr_rt.live.sink import Output, Shown, Sink, SinkOptions
from jokr_rt.video.live_mux import Coding
from jokr_rt.video.push import PROTOCOLS, Push, public_name
from jokr_rt.video.recording import Recording, check_recording, free_names
from jokr_rt.video.sound import SoundPacket, SoundTrack
from jokr_rt.video.virtual_camera import VirtualCamera, check_camera

__all__ = ["KINDS", "Shown", "Sink", "SinkOptions", "open_sink"]

KINDS = (
    "a recording (.mp4, .mov, .mkv), a stream (" + "://, ".join(PROTOCOLS) + "://), "
    "/dev/videoN or camera:N, - (raw rgb24 on stdout), preview or preview:PORT"
)
"""What a sink can be, for a person."""


def open_sink(spec: str, size: tuple[int, int], options: SinkOptions, clock: Clock) -> Sink:
    """A sink for pictures of `size` (width, height) in pixels. spec: see KINDS.

    What can be known at once is: raises UsageError where the spec cannot be meant, OutputError where the file, device
    or port cannot be had. A network is connected to at the first picture, as often as it takes.
    """
    name, make = _parse(spec, size, options)
    if spec == "-":  # nobody can begin to read it again
        options = replace(options, retries=0)
    return Sink(name, make, options, clock)


def _parse(spec: str, size: tuple[int, int], options: SinkOptions) -> tuple[str, Callable[[], Output]]:
    coding = Coding(*size, options.rate, options.bitrate, options.keyframe_s)
    if spec == "-":
        return "stdout", lambda: RawFrames(sys.stdout.fileno())
    if match := re.fullmatch(r"preview(?::(\d+))?", spec):
        preview = Preview(int(match[1]) if match[1] else PORT)
        return f"preview at {preview.url}", lambda: preview
    if match := re.fullmatch(r"camera:(\d+)|(/dev/video\d+)", spec):
        device = match[2] or f"/dev/video{match[1]}"
        check_camera(device)
        return device, lambda: VirtualCamera(device, *size, options.rate)
    if match := re.match(r"([a-z][a-z0-9+.-]+)://", spec, re.IGNORECASE):
        if match[1] not in PROTOCOLS:
            raise UsageError(f"{public_name(spec)}: cannot write to {match[1]}://; an output is {KINDS}")
        return public_name(spec), lambda: Push(spec, coding, options.stall_s)
    path = Path(spec)
    check_recording(path, options.overwrite)
    names = free_names(path)
    return spec, lambda: Recording(next(names), coding)


class RawFrames:
    """Pictures one after the other on a file descriptor, as (H, W, 3) bytes and nothing else.

    Written past Python's own buffer, whose lock a reader that stalls would hold at the end of the program.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def open(self, sound: SoundTrack | None) -> None:
        """Bytes stay bytes on Windows, too."""
        if sys.platform == "win32":
            import msvcrt

            msvcrt.setmode(self._descriptor, os.O_BINARY)

    def write(self, image: NDArray[np.uint8], time_s: Fraction) -> None:
        """Until the reader has taken it. Raises OutputError where there is none any more."""
        data = np.ascontiguousarray(image).data.cast("B")
        try:
            while data:
                data = data[os.write(self._descriptor, data) :]
        except OSError as error:
            raise OutputError(f"stdout: cannot be written ({error.strerror})") from error

    def write_sound(self, packet: SoundPacket, time_s: Fraction) -> None:
        """Raw pictures have none."""

    def close(self) -> None:
        """It stays open: it is the program's."""

    def abort(self) -> None:
        """A reader that stalls cannot be ended from here."""
