"""Cameras that are not ours: ffmpeg and a GStreamer RTSP server, as processes that can be killed and stopped.

What they show are numbered pictures, so that a test knows which one it sees.
"""

import os
import shlex
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from tests import clips

BITS = 8
"""Pictures are numbered from 0 to 255."""

FFMPEG = ["ffmpeg", "-hide_banner", "-nostdin", "-loglevel", "error"]

SYSTEM_PYTHON = "/usr/bin/python3"  # where Debian's packages have put GStreamer

_RTSP_SERVER = """
import sys, gi
gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer
Gst.init(None)
server = GstRtspServer.RTSPServer(address="127.0.0.1", service=sys.argv[1])
factory = GstRtspServer.RTSPMediaFactory()
factory.set_launch(sys.argv[2])
server.get_mount_points().add_factory("/camera", factory)
assert server.attach(None)
GLib.MainLoop().run()
"""


def numbered(number: int, width: int = 64, height: int = 48) -> NDArray[np.uint8]:
    """A picture that shows a number as BITS bars, white for 1, on grey that no bar touches at the edge."""
    rgb = np.full((height, width, 3), 110, np.uint8)
    for bit in range(BITS):
        left, right = (bit + 1) * width // (BITS + 2), (bit + 2) * width // (BITS + 2)
        rgb[height // 4 : height * 3 // 4, left:right] = 255 * (number >> bit & 1)
    return rgb


def number_of(rgb: NDArray[np.uint8]) -> int:
    """The number in a picture, at any size and after any coding."""
    height, width, _ = rgb.shape
    centres = [(2 * bit + 3) * width // (2 * (BITS + 2)) for bit in range(BITS)]
    levels = [rgb[height * 3 // 8 : height * 5 // 8, x - 1 : x + 2].mean() for x in centres]
    assert all(abs(level - 128) > 60 for level in levels), f"no number in these bars: {levels}"
    return sum(int(level > 128) << bit for bit, level in enumerate(levels))


def numbered_clip(
    path: Path, count: int, *, width: int = 64, height: int = 48, rate: int = 25, audio: str | None = None
) -> Path:
    """Encode pictures 0, 1, 2 ... as a camera does: no B-frames, a keyframe every 5."""
    options = {"tune": "zerolatency", "preset": "ultrafast", "g": "5"}
    pictures = (numbered(number % 2**BITS, width, height) for number in range(count))
    return clips.video(
        path, count, width=width, height=height, rate=rate, pictures=pictures, options=options, audio=audio
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Camera:
    """A foreign process that sends; a context manager that kills it."""

    def __init__(self, command: list[str]) -> None:
        self._command = command
        self.start()

    def start(self) -> None:
        quiet = subprocess.DEVNULL
        self.process = subprocess.Popen(self._command, stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True)

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            self._signal(signal.SIGKILL)
        self.process.wait(30)

    def freeze(self) -> None:
        """It hangs: its sockets stay open and are silent."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        os.killpg(self.process.pid, number)

    def __enter__(self) -> "Camera":
        return self

    def __exit__(self, *error: object) -> None:
        self.kill()


MPEG_TS = ("-f", "mpegts", "-muxdelay", "0", "-flush_packets", "1")


def sending(clip: Path, url: str, *options: str) -> list[str]:
    """The command with which ffmpeg sends a clip over and over at its own rate."""
    return [*FFMPEG, "-re", "-stream_loop", "-1", "-i", str(clip), "-c", "copy", *(options or MPEG_TS), url]


def sender(clip: Path, url: str, *options: str) -> Camera:
    """ffmpeg sends a clip over and over, as MPEG-TS unless the options say otherwise."""
    return Camera(sending(clip, url, *options))


def listening(clip: Path, url: str, *options: str) -> Camera:
    """The same where ffmpeg is the server, for one client: it listens when this returns."""
    camera = Camera(sending(clip, url, *options))
    wait_until_bound(urlsplit(url).port or 0)
    return camera


def caller(clip: Path, url: str) -> Camera:
    """The same where ffmpeg calls until somebody answers."""
    return Camera(["sh", "-c", f"until {shlex.join(sending(clip, url))}; do sleep 0.1; done"])


def rtsp_camera(clip: Path, port: int, *, sound: bool = False) -> Camera:
    """GStreamer's RTSP server plays an MP4 with H.264 (and AAC) at rtsp://127.0.0.1:PORT/camera."""
    launch = f'( filesrc location="{clip}" ! qtdemux name=d d.video_0 ! queue ! h264parse'
    launch += " ! rtph264pay name=pay0 pt=96 config-interval=-1"
    if sound:
        launch += " d.audio_0 ! queue ! aacparse ! rtpmp4gpay name=pay1 pt=97"
    camera = Camera([SYSTEM_PYTHON, "-c", _RTSP_SERVER, str(port), launch + " )"])
    wait_until_bound(port)
    return camera


def wait_until_bound(port: int, protocol: str = "tcp") -> None:
    """Until a process of this machine listens there; it is not called, as some answer but once."""
    state = {"tcp": "0A", "udp": "07"}[protocol]
    for _ in range(600):
        lines = Path(f"/proc/net/{protocol}").read_text().splitlines()[1:]
        if any(line.split()[1].endswith(f":{port:04X}") and line.split()[3] == state for line in lines):
            return
        time.sleep(0.05)
    raise AssertionError(f"nobody listens at port {port}")


@contextmanager
def silent_server() -> Iterator[int]:
    """A port that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield int(server.getsockname()[1])
