"""A look at the result in a browser on this machine: MJPEG over HTTP, on loopback only."""

import socket
from contextlib import suppress
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Condition, Lock, Thread
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jokr_rt.errors import OutputError
from jokr_rt.video.jpeg import jpeg
from jokr_rt.video.sound import SoundPacket, SoundTrack

PORT = 8090
_VIEWERS = 16
_PATIENCE_S = 5.0  # for a viewer that takes nothing
_BOUNDARY = "jokr-picture"
_PAGE = b"""<!doctype html><html lang="en"><meta charset="utf-8"><title>jokr live</title>
<style>body{margin:0;background:#222;display:grid;place-items:center;height:100vh}img{max-width:100%;height:90vh;
object-fit:contain}</style><img src="/stream.mjpg" alt="what jokr live shows now"></html>"""


class Preview:
    """Serves `/` (a page), `/stream.mjpg` and `/picture.jpg` on http://127.0.0.1:`port`/; 0 for a free one.

    A viewer, of 16 at most, gets the newest picture as fast as it takes them. Pictures are coded once for all viewers,
    and only while there are any. Raises OutputError if the port is taken.
    """

    def __init__(self, port: int = PORT) -> None:
        self._changed = Condition()
        self._closed = False
        self._image: NDArray[np.uint8] | None = None
        self._number = 0
        self._coding = Lock()
        self._coded: tuple[int, bytes] = (0, b"")
        self._viewers: set[socket.socket] = set()
        try:
            self._server = _Server(("127.0.0.1", port), self)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            message = f"preview: port {port} of 127.0.0.1 cannot be used ({reason}); try preview:0"
            raise OutputError(message) from error
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/"
        self._thread = Thread(target=self._server.serve_forever, args=(0.1,), name="jokr-preview", daemon=True)
        self._thread.start()

    def open(self, sound: SoundTrack | None) -> None:
        """It is, since it was made."""

    def write(self, image: NDArray[np.uint8], time_s: Fraction) -> None:
        """image: (H, W, 3) uint8 RGB, not changed any more."""
        with self._changed:
            self._image = image
            self._number += 1
            self._changed.notify_all()

    def write_sound(self, packet: SoundPacket, time_s: Fraction) -> None:
        """A preview has none."""

    def newest(self, after: int) -> tuple[int, bytes] | None:
        """(number, JPEG) of the newest picture, when there is one behind number `after`; None when closed."""
        with self._changed:
            while self._number <= after and not self._closed:
                self._changed.wait()
            if self._closed:
                return None
            number, image = self._number, self._image
        assert image is not None
        with self._coding:
            if self._coded[0] < number:
                self._coded = number, jpeg(image)
            return self._coded

    def enter(self, viewer: socket.socket) -> bool:
        """Count a connection in; false if there are too many."""
        with self._changed:
            if self._closed or len(self._viewers) >= _VIEWERS:
                return False
            self._viewers.add(viewer)
            return True

    def leave(self, viewer: socket.socket) -> None:
        """Count it out."""
        with self._changed:
            self._viewers.discard(viewer)

    def close(self) -> None:
        """End the server and all its threads; viewers are cut off."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            for viewer in self._viewers:
                with suppress(OSError):  # gone already
                    viewer.shutdown(socket.SHUT_RDWR)
            self._changed.notify_all()
        self._server.shutdown()
        self._server.server_close()  # waits for the viewers' threads
        self._thread.join()

    def abort(self) -> None:
        """Nothing here waits for a viewer."""


class _Server(ThreadingHTTPServer):
    daemon_threads = False  # so that server_close waits for them

    def __init__(self, address: tuple[str, int], preview: Preview) -> None:
        self.preview = preview
        super().__init__(address, _Handler)

    def verify_request(self, request: Any, client_address: Any) -> bool:
        return self.preview.enter(request)

    def shutdown_request(self, request: Any) -> None:
        self.preview.leave(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A viewer that went away is nothing to tell."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = _PATIENCE_S
    protocol_version = "HTTP/1.0"

    def do_GET(self) -> None:
        # A page of another site that had its own name point here would send that name.
        if self.headers.get("Host", "").rpartition(":")[0] not in ("127.0.0.1", "localhost"):
            return self.send_error(403, "by the name 127.0.0.1 or localhost only")
        preview = self.server.preview
        if self.path == "/":
            return self._send("text/html; charset=utf-8", _PAGE)
        if self.path not in ("/stream.mjpg", "/picture.jpg"):
            return self.send_error(404)
        if self.path == "/stream.mjpg":
            return self._stream(preview)
        if (newest := preview.newest(0)) is not None:
            self._send("image/jpeg", newest[1])

    def _stream(self, preview: Preview) -> None:
        self.send_response(200)
        self.send_header("Content-Type", f"multipart/x-mixed-replace; boundary={_BOUNDARY}")
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        number = 0
        while (newest := preview.newest(number)) is not None:
            number, data = newest
            head = f"--{_BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
            self.wfile.write(head.encode() + data + b"\r\n")

    def _send(self, kind: str, data: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are nothing to tell."""
