"""A stream pushed to a network address by a process of its own.

FFmpeg connects while it holds Python's global lock, and a receiver that stalls blocks it without bound: neither can be
ended from within, a process can.

The parent writes requests: one line of JSON, then for each picture or piece of sound a `_HEAD` and its data. The child
answers each with a line, empty where all went well.
"""

import faulthandler
import json
import os
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit, urlunsplit

import numpy as np
from numpy.typing import NDArray

import jokr_rt
from jokr_rt.errors import InputError, JokrError, OutputError
from jokr_rt.video.live_mux import TICK, Coding, LiveMux
from jokr_rt.video.sound import SoundPacket, SoundTrack

_KINDS = {"rtmp": "flv", "rtmps": "flv", "rtsp": "rtsp", "rtsps": "rtsp", "udp": "mpegts", "tcp": "mpegts"}
PROTOCOLS = tuple(_KINDS)
"""Schemes of the addresses that can be pushed to."""

_OPTIONS = {"flv": {"flvflags": "no_duration_filesize"}, "rtsp": {"rtsp_transport": "tcp"}, "mpegts": {}}
# UDP: seven packets of a transport stream fill a datagram that fits into Ethernet's. TCP: a packet leaves at once, it
# does not wait for the last one's receipt. (FFmpeg's RTMP and RTSP connect by themselves and take no such query.)
_QUERIES = {"udp": "pkt_size=1316", "tcp": "tcp_nodelay=1"}

_HEAD = struct.Struct("<cqqI")  # kind; time and duration in ticks; bytes of data that follow
_PICTURE, _SOUND = b"p", b"s"
_PROGRAM = "from jokr_rt.video.push import serve; serve()"
_SECONDS_TO_END = 2.0


def public_name(url: str) -> str:
    """The address without what is secret in it: a password, an RTMP stream's key, a query."""
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    path = parts.path
    if parts.scheme in ("rtmp", "rtmps") and path.count("/") > 1:
        path = f"{path.rpartition('/')[0]}/***"
    user = f"{user.partition(':')[0]}:***" if ":" in user else user
    return urlunsplit((parts.scheme, f"{user}{at}{host}", path, "", ""))


class Push:
    """Pictures, and perhaps sound, as a stream to `url`, whose scheme is one of PROTOCOLS.

    stall_s: seconds that connecting, and each write, may take: then the process ends itself, and what it was asked
    raises OutputError. Only an address that listens (`tcp://...?listen=1`) may wait for its peer for good.
    """

    def __init__(self, url: str, coding: Coding, stall_s: float) -> None:
        self.name = public_name(url)
        self._url, self._coding, self._stall_s = url, coding, stall_s
        self._child: _Child | None = None

    def open(self, sound: SoundTrack | None) -> None:
        """Start the process and connect. Raises OutputError."""
        self._child = _Child(self.name)
        self._child.ask(
            json.dumps(
                {
                    "url": self._url,
                    "name": self.name,
                    "coding": {**asdict(self._coding), "rate": str(self._coding.rate)},
                    "sound": asdict(sound) if sound else None,
                    "stall_s": self._stall_s,
                }
            ).encode()
            + b"\n"
        )

    def write(self, image: NDArray[np.uint8], time_s: Fraction) -> None:
        """image: (height, width, 3) uint8 RGB. time_s: later than the last. Returns when it was sent."""
        if image.shape != (self._coding.height, self._coding.width, 3):
            raise InputError(f"{self.name}: a picture of shape {image.shape} does not fit, see {self._coding}")
        data = np.ascontiguousarray(image).data.cast("B")
        self._ask(_PICTURE, time_s, Fraction(0), data)

    def write_sound(self, packet: SoundPacket, time_s: Fraction) -> None:
        """Sound of `time_s`, on the clock of the pictures. Raises OutputError."""
        self._ask(_SOUND, time_s, packet.duration_s, memoryview(packet.data))

    def close(self) -> None:
        """End the stream as its protocol does, and the process. Raises OutputError where it has failed."""
        child, self._child = self._child, None
        if child is not None:
            child.finish()

    def abort(self) -> None:
        """Kill the process, from any thread: what waits for it raises OutputError."""
        if (child := self._child) is not None:
            child.kill()

    def _ask(self, kind: bytes, time_s: Fraction, duration_s: Fraction, data: memoryview) -> None:
        assert self._child is not None
        self._child.ask(_HEAD.pack(kind, round(time_s / TICK), round(duration_s / TICK), len(data)), data)


class _Child:
    """The process, seen from the parent. Its words on stderr are kept aside; Ctrl-C is for the parent to hear."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._words: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115, closed with the process
        here = str(Path(jokr_rt.__file__).parents[1])
        self._process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._words,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")]))},
            start_new_session=True,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._requests, self._answers = self._process.stdin, self._process.stdout

    def ask(self, *request: bytes | memoryview) -> None:
        with suppress(BrokenPipeError):  # the answer says why
            for part in request:
                self._requests.write(part)
            self._requests.flush()
        self._answer()

    def finish(self) -> None:
        """Let it close the stream, which answers once more, and end."""
        try:
            with suppress(BrokenPipeError):
                self._requests.close()
            self._answer()
        finally:
            try:
                self._process.wait(_SECONDS_TO_END)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._answers.close()
            self._words.close()

    def kill(self) -> None:
        self._process.kill()

    def _answer(self) -> None:
        answer = self._answers.readline()
        if answer == b"\n":
            return
        raise OutputError(answer.decode().strip() or f"{self._name}: {self._death()}")

    def _death(self) -> str:
        code = self._process.wait()
        self._words.seek(0)
        words = self._words.read().decode(errors="replace").strip().splitlines()
        if words and words[0].startswith("Timeout ("):  # faulthandler's
            return "the receiver stalled"
        return f"its process ended with {code} ({words[-1] if words else 'without a word'})"


def serve() -> None:
    """The child: until stdin ends, and no longer than `stall_s` for anything but waiting for stdin."""
    requests = sys.stdin.buffer
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # what a library prints is not an answer
    try:
        for _ in _served(requests):
            answers.write(b"\n")
    except Exception as error:
        words = str(error) if isinstance(error, JokrError) else f"{type(error).__name__}: {error}"
        answers.write(" ".join(words.split()).encode() + b"\n")
        os._exit(1)  # closing what failed may block


def _served(requests: IO[bytes]) -> Iterator[None]:
    setup = json.loads(requests.readline())
    stall_s = setup["stall_s"]
    with _limited(None if "listen" in urlsplit(setup["url"]).query else stall_s):
        mux = _open(setup)
    yield
    while head := requests.read(_HEAD.size):
        kind, time, duration, size = _HEAD.unpack(head)
        data = requests.read(size)
        with _limited(stall_s):
            if kind == _PICTURE:
                coding = setup["coding"]
                image = np.frombuffer(data, np.uint8).reshape(coding["height"], coding["width"], 3)
                mux.write(image, time * TICK)
            else:
                mux.write_sound(data, time * TICK, duration * TICK)
        yield
    with _limited(stall_s):
        mux.close()
    yield


def _open(setup: dict[str, Any]) -> LiveMux:
    coding = Coding(**{**setup["coding"], "rate": Fraction(setup["coding"]["rate"])})
    sound = SoundTrack(**setup["sound"]) if setup["sound"] else None
    parts = urlsplit(setup["url"])
    kind = _KINDS[parts.scheme]
    query = "&".join(filter(None, [parts.query, _QUERIES.get(parts.scheme)]))
    return LiveMux(urlunsplit(parts._replace(query=query)), kind, coding, sound, _OPTIONS[kind], setup["name"])


@contextmanager
def _limited(seconds: float | None) -> Iterator[None]:
    """End this process, saying where it was, if the block takes longer: its watch needs no lock of Python's."""
    if seconds is not None:
        faulthandler.dump_traceback_later(seconds, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()
