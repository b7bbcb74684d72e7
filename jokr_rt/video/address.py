"""What a person types as a live source, and how FFmpeg is to open it with little delay."""

import os
import re
import select
import stat
import sys
from dataclasses import dataclass, field
from pathlib import Path

import av
from av.error import FFmpegError, ProtocolNotFoundError

from jokr_rt.errors import InputError, UsageError
from jokr_rt.video.devices import CameraMode, camera_input, check_camera
from jokr_rt.video.push import public_name

STDIN = "-"

_SCHEME = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://")

# How many microseconds of the stream FFmpeg looks at before it tells what is in it, instead of 5 s, and no wait for the
# pictures from which it would guess a rate. A camera's sound may begin later than its picture, so not less than this.
# It keeps as many bytes of a stream as it may look at: 2 MB, half a second at 32 Mbit/s, instead of 5.
_QUICK = {"fpsprobesize": "0", "analyzeduration": "500000", "probesize": "2000000"}
_LOW_LATENCY: dict[str, dict[str, str]] = {
    "rtsp": {"fpsprobesize": "0", "analyzeduration": "200000"},  # the session's description has told most of it
    "rtmp": {**_QUICK, "rtmp_live": "live", "rtmp_buffer": "100"},  # milliseconds that the server sends ahead
    # A burst that the buffer does not hold costs pictures, and not the connection.
    "udp": {**_QUICK, "overrun_nonfatal": "1"},
}
_ALIASES = {"rtsps": "rtsp", "rtmps": "rtmp", "rtmpt": "rtmp", "rtmpe": "rtmp"}

# A stream from elsewhere, such as a playlist, must not make us read this machine's files.
_NETWORK = (
    "crypto,data,ftp,gopher,gophers,http,httpproxy,https,mmsh,mmst,rist,rtmp,rtmpe,rtmps,rtmpt,rtmpte,rtmpts,rtp,sctp,"
    "srt,srtp,tcp,tls,udp,udplite,unix"
)


@dataclass(frozen=True)
class Address:
    """kind: "camera", "network", "pipe" or "file".

    name: for people, without what is secret. url, format, options: for FFmpeg; of a pipe, url is the path or "-".
    """

    kind: str
    name: str
    url: str
    format: str | None = None
    options: dict[str, str] = field(default_factory=dict)

    @property
    def is_live(self) -> bool:
        """Whether its end, or silence, is a loss."""
        return self.kind != "file"


def find_address(source: str, mode: CameraMode, rtsp_transport: str) -> Address:
    """Raises UsageError for what is not a source, InputError for a webcam that DirectShow does not number."""
    if source == STDIN:
        return Address("pipe", "stdin", STDIN, options=_QUICK)
    if source.startswith("camera:"):
        return _camera(source, source.removeprefix("camera:"), mode)
    if match := _SCHEME.match(source):
        return _network(source, match["scheme"].lower(), rtsp_transport)
    path = source.removeprefix("file:")
    if re.fullmatch(r"/dev/video\d+", path):
        return _camera(path, path, mode)
    if _is_fifo(path):
        return Address("pipe", path, path, options=_QUICK)
    # `file:` keeps a name such as `12:30.mp4` from being taken for a network address; see also `decode.open_input`.
    return Address("file", path, f"file:{path}", options={"protocol_whitelist": "file"})


def _camera(source: str, name: str, mode: CameraMode) -> Address:
    url, kind, options = camera_input(name, mode)
    return Address("camera", source, url, kind, options)


def _network(source: str, scheme: str, rtsp_transport: str) -> Address:
    family = _ALIASES.get(scheme, scheme)
    options = {**_LOW_LATENCY.get(family, _QUICK), "protocol_whitelist": _NETWORK}
    if family == "rtsp":
        options["rtsp_transport"] = rtsp_transport
    try:
        name = public_name(source)
    except ValueError as error:
        raise UsageError(f"the source is no address ({error}); it looks like rtsp://host:port/path") from error
    return Address("network", name, source, options=options)


def _is_fifo(path: str) -> bool:
    try:
        return stat.S_ISFIFO(os.stat(path).st_mode)
    except OSError:
        return False


def check_address(address: Address) -> None:
    """What can be known before anything starts: raises UsageError or InputError."""
    if address.kind == "camera":
        check_camera(address.name, address.url, address.format or "")
    elif address.kind == "network":
        _check_protocol(address)
    elif address.kind == "pipe" and sys.platform == "win32":
        raise UsageError(f"{address.name}: pipes are not read on Windows; send MPEG-TS over tcp:// or udp:// instead")
    elif address.kind == "file":
        _check_file(Path(address.name))


def _check_protocol(address: Address) -> None:
    scheme = address.url.partition("://")[0]
    if scheme == "file":
        raise UsageError(f"{address.name}: give a file by its path, without file://")
    try:
        # A whitelist with nothing on it: FFmpeg finds the protocol, or not, and opens nothing.
        av.open(f"{scheme}://127.0.0.1:1/", container_options={"protocol_whitelist": "none"})
    except ProtocolNotFoundError:
        raise UsageError(
            f"{address.name}: the installed FFmpeg cannot read {scheme}://; "
            "send RTSP, RTMP, HTTP, or MPEG-TS over udp:// or tcp://"
        ) from None
    except (FFmpegError, OSError):
        return


def _check_file(path: Path) -> None:
    if path.is_dir():
        raise UsageError(f"{path}: is a folder; a live source is a camera, a stream or a video file")
    if not path.exists():
        raise InputError(f"{path}: there is no such file or device")


class Pipe:
    """A named pipe or stdin as a file that FFmpeg reads through: its own reads of a pipe cannot be interrupted.

    `timeout_s` is how long a read may wait; then it raises TimeoutError. `ended`: whether the writer has closed it.
    """

    def __init__(self, path: str, timeout_s: float) -> None:
        self.name = path
        self.timeout_s = timeout_s
        self.ended = False
        # Without O_NONBLOCK the opening itself would wait for a writer.
        self._file = sys.stdin.fileno() if path == STDIN else os.open(path, os.O_RDONLY | os.O_NONBLOCK)

    def read(self, size: int) -> bytes:
        """At most `size` bytes, as soon as there are any; none at the end."""
        if not select.select([self._file], [], [], self.timeout_s)[0]:
            raise TimeoutError
        data = os.read(self._file, size)
        self.ended = not data
        return data

    def close(self) -> None:
        if self.name != STDIN:
            os.close(self._file)
