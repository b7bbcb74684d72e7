"""Receivers that are not ours: ffmpeg as a process that listens for what we push. See tests/cameras.py for senders."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.cameras import FFMPEG, free_port, number_of

WIDTH, HEIGHT, RATE = 64, 48, Fraction(20)

# After the scheme: where ffmpeg listens (and gives up after a silence, which is how UDP ends), and its options.
_INPUTS = {
    "tcp": ("?listen=1", ["-f", "mpegts"]),
    "udp": ("?timeout=2000000", ["-f", "mpegts"]),
    "rtmp": ("/live/key", ["-listen", "1", "-f", "flv"]),
    "rtsp": ("/live", ["-rtsp_flags", "listen", "-f", "rtsp"]),
}


class Receiver:
    """address: to push to. The pictures it gets come out of it as raw ones, or everything goes into a file."""

    def __init__(self, scheme: str, file: Path | None, port: int) -> None:
        tail, options = _INPUTS[scheme]
        url = f"{scheme}://127.0.0.1:{port}{tail}"
        self.address = url.partition("?")[0]
        output = ["-c", "copy", file] if file else ["-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
        command = [*FFMPEG, "-analyzeduration", "500000", *options, "-i", url, "-vsync", "passthrough", *output]
        self.process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        _wait_until_bound(port, "udp" if scheme == "udp" else "tcp")

    def pictures(self) -> list[NDArray[np.uint8]]:
        """All it got, once the sender has ended."""
        raw = np.frombuffer(self.process.communicate(timeout=60)[0], np.uint8)
        return list(raw.reshape(-1, HEIGHT, WIDTH, 3))

    def numbers(self) -> list[int]:
        """The numbers in them."""
        return [number_of(picture) for picture in self.pictures()]


@contextmanager
def receiver(scheme: str, file: Path | None = None, port: int | None = None) -> Iterator[Receiver]:
    made = Receiver(scheme, file, port or free_port())
    try:
        yield made
    finally:
        made.process.kill()
        made.process.communicate()


def probe(path: Path) -> dict[str, Any]:
    """What ffprobe says of a file and each of its packets; it fails where ffmpeg finds damage."""
    subprocess.run([*FFMPEG, "-xerror", "-i", str(path), "-f", "null", "-"], check=True)
    command = ["ffprobe", "-v", "error", "-show_streams", "-show_packets", "-of", "json", str(path)]
    found: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return found


def _wait_until_bound(port: int, table: str) -> None:
    """Until a process of this machine listens there."""
    state = {"tcp": "0A", "udp": "07"}[table]
    while True:
        lines = Path(f"/proc/net/{table}").read_text().splitlines()[1:]
        if any(line.split()[1].endswith(f":{port:04X}") and line.split()[3] == state for line in lines):
            return
