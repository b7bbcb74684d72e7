"""The preview over real HTTP: what a browser, ffmpeg, a slow viewer and another site get."""

import http.client
import re
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from jokr_rt.clock import RealClock
from jokr_rt.errors import OutputError
from jokr_rt.live.preview import Preview
from jokr_rt.live.sinks import Shown, SinkOptions, open_sink
from jokr_rt.video.jpeg import jpeg
from tests import clips
from tests.cameras import FFMPEG, number_of, numbered


@contextmanager
def preview() -> Iterator[Preview]:
    made = Preview(0)
    try:
        yield made
    finally:
        made.close()
        assert not [thread for thread in threading.enumerate() if "process_request" in thread.name]


def port_of(made: Preview) -> int:
    return int(made.url.rsplit(":", 1)[1].rstrip("/"))


def get(made: Preview, path: str, host: str | None = None) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", port_of(made), timeout=30)
    connection.request("GET", path, headers={"Host": host} if host else {})
    return connection.getresponse()


def decoded(data: bytes) -> np.ndarray:
    decoder = av.CodecContext.create("mjpeg", "r")
    frames = decoder.decode(av.Packet(data)) + decoder.decode(None)
    return frames[0].to_ndarray(format="rgb24")


def test_a_jpeg_has_the_pictures_colours() -> None:
    clips.assert_corners(decoded(jpeg(clips.picture(64, 48))), clips.CORNERS, levels=4)
    assert decoded(jpeg(clips.picture(63, 47))).shape == (47, 63, 3)


def test_the_page_shows_the_stream_and_the_picture_is_the_newest() -> None:
    with preview() as made:
        page = get(made, "/")
        assert page.status == 200
        assert b'src="/stream.mjpg"' in page.read()
        for number in (3, 200):
            made.write(numbered(number), Fraction(number))
            answer = get(made, "/picture.jpg")
            assert answer.getheader("Content-Type") == "image/jpeg"
            assert answer.getheader("Cache-Control") == "no-store"
            assert number_of(decoded(answer.read())) == number
        assert get(made, "/elsewhere").status == 404


def test_each_picture_is_a_part_of_the_stream() -> None:
    with preview() as made:
        made.write(numbered(0), Fraction(0))
        stream = get(made, "/stream.mjpg")
        boundary = re.fullmatch(r"multipart/x-mixed-replace; boundary=(.+)", stream.getheader("Content-Type") or "")
        assert boundary
        for number in range(5):
            assert stream.readline() == f"--{boundary[1]}\r\n".encode()
            assert stream.readline() == b"Content-Type: image/jpeg\r\n"
            length = int(stream.readline().removeprefix(b"Content-Length: "))
            assert stream.readline() == b"\r\n"
            assert number_of(decoded(stream.read(length))) == number
            assert stream.readline() == b"\r\n"
            made.write(numbered(number + 1), Fraction(number + 1))
        stream.close()


def test_a_foreign_viewer_sees_the_pictures() -> None:
    with preview() as made:
        command = [*FFMPEG, "-f", "mpjpeg", "-i", f"{made.url}stream.mjpg", "-frames:v", "5", "-f", "rawvideo"]
        with subprocess.Popen([*command, "-pix_fmt", "rgb24", "-"], stdout=subprocess.PIPE) as viewer:
            number = 0
            while viewer.poll() is None:
                made.write(numbered(number % 256), Fraction(number))
                number += 1
                time.sleep(0.02)
            out, _ = viewer.communicate()
    numbers = [number_of(picture) for picture in np.frombuffer(out, np.uint8).reshape(-1, 48, 64, 3)]
    assert len(numbers) == 5
    assert numbers[-1] - numbers[0] < number


def test_a_viewer_that_takes_nothing_holds_up_neither_the_sink_nor_the_other_viewers() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (480, 640, 3)).astype(np.uint8)
    sink = open_sink("preview:0", (640, 480), SinkOptions(), RealClock())
    url = sink.name.removeprefix("preview at ")
    port = int(url.rsplit(":", 1)[1].rstrip("/"))
    with socket.create_connection(("127.0.0.1", port)) as lazy:
        lazy.sendall(b"GET /stream.mjpg HTTP/1.0\r\nHost: localhost:1\r\n\r\n")
        for number in range(200):
            sink.put(Shown(picture, 0.0, Fraction(number), True))
            while sink.queue_depth:
                time.sleep(0.0005)
        assert (sink.shown, sink.dropped, sink.failures) == (200, 0, 0)
        other = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        other.request("GET", "/picture.jpg")
        assert decoded(other.getresponse().read()).shape == picture.shape
        started = time.monotonic()
        sink.close(30)
        assert time.monotonic() - started < 15
    assert (sink.state, sink.thread.is_alive()) == ("closed", False)
    assert not [thread for thread in threading.enumerate() if "process_request" in thread.name]


def test_only_this_machine_by_its_own_name_may_look() -> None:
    """A page of another site whose name was made to point at this machine sends that name."""
    with preview() as made:
        made.write(numbered(1), Fraction(0))
        for host, status in (("127.0.0.1:80", 200), ("localhost:80", 200), ("evil.example:80", 403), ("x", 403)):
            assert get(made, "/picture.jpg", host).status == status
        rows = [row.split() for row in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        listening = {row[1] for row in rows if row[3] == "0A" and row[1].endswith(f":{port_of(made):04X}")}
        assert listening == {f"0100007F:{port_of(made):04X}"}


def test_more_viewers_than_a_person_has_are_turned_away() -> None:
    with preview() as made:
        made.write(numbered(1), Fraction(0))
        streams = [get(made, "/stream.mjpg") for _ in range(16)]
        with pytest.raises((ConnectionError, http.client.HTTPException)):
            get(made, "/stream.mjpg")
        streams.pop().close()
        while True:  # one has left, which the server sees when it sends
            made.write(numbered(1), Fraction(1))
            with suppress(ConnectionError, http.client.HTTPException):
                streams.append(get(made, "/stream.mjpg"))
                break
        for stream in streams:
            stream.close()


def test_a_browser_that_connects_and_asks_nothing_does_not_delay_the_end() -> None:
    with preview() as made, socket.create_connection(("127.0.0.1", port_of(made))):
        made.write(numbered(1), Fraction(0))
        assert get(made, "/picture.jpg").status == 200
        started = time.monotonic()
        made.close()
        assert time.monotonic() - started < 3


def test_a_port_that_is_taken_is_said_so_in_one_line() -> None:
    with preview() as made, pytest.raises(OutputError) as error:
        Preview(port_of(made))
    message = clips.message_of(error)
    assert f"port {port_of(made)} of 127.0.0.1" in message
    assert "preview:0" in message
