"""Foreign cameras on real sockets and pipes: what arrives, when it is lost, and within which time."""

import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from jokr_rt.clock import RealClock
from jokr_rt.video.capture import Capture, Captured, CaptureOptions, SourceLost, open_capture
from tests import cameras, clips
from tests.cameras import Camera, number_of
from tests.process import ROOT

RATE, STALL_S = 25, 2.0
OPTIONS = CaptureOptions(stall_s=STALL_S, open_s=8.0)


@dataclass
class Line:
    """Where a camera is seen, and how it is started."""

    source: str
    start: Callable[[], Camera]
    options: CaptureOptions = OPTIONS


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """10 s that begin again: numbers 0 to 249."""
    return cameras.numbered_clip(tmp_path_factory.mktemp("camera") / "clip.mp4", 250, rate=RATE, audio="aac")


def line(kind: str, clip: Path, folder: Path) -> Line:
    port = cameras.free_port()
    if kind.startswith("rtsp"):
        transport = CaptureOptions(stall_s=STALL_S, open_s=8.0, rtsp_transport=kind.removeprefix("rtsp-"))
        return Line(f"rtsp://127.0.0.1:{port}/camera", lambda: cameras.rtsp_camera(clip, port, sound=True), transport)
    if kind == "pipe":
        os.mkfifo(folder / "pipe")
        return Line(str(folder / "pipe"), lambda: cameras.sender(clip, str(folder / "pipe"), "-y", "-f", "mpegts"))
    flags = [*cameras.MPEG_TS]
    if kind == "udp":
        return Line(f"udp://127.0.0.1:{port}", lambda: cameras.sender(clip, f"udp://127.0.0.1:{port}?pkt_size=1316"))
    if kind == "tcp-listen":  # the camera calls us, and tries until we are there
        url = f"tcp://127.0.0.1:{port}"
        return Line(f"{url}?listen=1", lambda: cameras.caller(clip, url))
    tails = {"tcp": ("", "?listen=1", []), "http": ("", "", ["-listen", "1"])}
    tails["rtmp"] = ("/live/key", "/live/key", ["-listen", "1"])
    scheme = kind.partition("-")[0]
    ours, theirs, options = tails[scheme]
    if kind == "rtmp":
        flags = ["-f", "flv"]
    url = f"{scheme}://127.0.0.1:{port}"
    if kind == "http-mjpeg":
        flags = ["-c:v", "mjpeg", "-q:v", "2", "-an", "-f", "mpjpeg"]
    return Line(url + ours, lambda: cameras.listening(clip, url + theirs, *flags, *options))


@contextmanager
def seen(place: Line) -> Iterator[tuple[Camera, Capture]]:
    with place.start() as camera:
        capture = open_capture(place.source, place.options, RealClock())
        try:
            yield camera, capture
        finally:
            capture.close()


KINDS = ["tcp", "tcp-listen", "udp", "rtsp-tcp", "rtsp-udp", "rtmp", "http", "http-mjpeg", "pipe"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_picture_and_its_sound_arrive(kind: str, clip: Path, tmp_path: Path) -> None:
    with seen(line(kind, clip, tmp_path)) as (_, capture):
        captured = [capture.read() for _ in range(40)]
        sounds = capture.take_sounds()
    numbers = [number_of(each.frame.rgb) for each in captured]
    assert numbers == [*range(numbers[0], numbers[0] + 40)]
    times = [each.frame.pts_seconds for each in captured]
    assert np.diff(times[1:]) == pytest.approx([1 / RATE] * 38, abs=0.002)  # RTSP's first has no time of its own
    assert all(later.captured_s >= earlier.captured_s for earlier, later in pairwise(captured))
    assert {each.connection for each in captured} == {captured[0].connection}
    if kind == "http-mjpeg":
        assert not sounds
        assert capture.settings["sound"] == "none"
        return
    heard = [float(packet.pts_s) for packet, _ in sounds][
        1:
    ]  # some after the first come before FFmpeg knows their times
    assert np.diff(heard) == pytest.approx([1024 / 48_000] * (len(heard) - 1), abs=0.002)
    assert abs(heard[-1] - times[-1]) < 0.5
    assert {connection for _, connection in sounds} == {captured[0].connection}


def lost_after(capture: Capture) -> tuple[str, float, list[Captured]]:
    """Why it was lost, seconds that the last read took, and what was read before."""
    read = []
    while True:
        began = time.monotonic()
        try:
            read.append(capture.read())
        except SourceLost as loss:
            return str(loss), time.monotonic() - began, read


@pytest.mark.parametrize("kind", ["tcp", "rtsp-tcp", "rtmp", "http", "pipe"])
def test_a_camera_that_is_killed_is_lost(kind: str, clip: Path, tmp_path: Path) -> None:
    with seen(line(kind, clip, tmp_path)) as (camera, capture):
        capture.read()
        camera.kill()
        reason, _, _ = lost_after(capture)
    assert ("Input/output error" if kind == "rtmp" else "the stream ended") in reason  # and not: no data


@pytest.mark.parametrize("kind", ["tcp", "udp", "rtsp-tcp", "rtsp-udp", "rtmp", "http", "pipe"])
def test_a_camera_that_hangs_is_lost_within_the_stall_time(kind: str, clip: Path, tmp_path: Path) -> None:
    with seen(line(kind, clip, tmp_path)) as (camera, capture):
        for _ in range(5):
            capture.read()
        camera.freeze()
        reason, seconds, read = lost_after(capture)
        began = time.monotonic()
        capture.close()
        closed_s = time.monotonic() - began
    assert "no data for 2 s" in reason
    assert STALL_S * 0.9 < seconds < STALL_S * 2
    # What FFmpeg had held back was not handed out a second late.
    assert all(later.captured_s - earlier.captured_s < STALL_S for earlier, later in pairwise(read))
    assert closed_s < 2


@pytest.mark.parametrize("scheme", ["tcp", "rtsp", "rtmp", "http"])
def test_a_server_that_never_answers_is_given_up_in_time(scheme: str) -> None:
    with cameras.silent_server() as port:
        began = time.monotonic()
        with pytest.raises(SourceLost) as error:
            open_capture(f"{scheme}://127.0.0.1:{port}/x", CaptureOptions(open_s=1.0), RealClock())
        assert time.monotonic() - began < 3
    assert f"{scheme}://127.0.0.1:{port}" in clips.message_of(error)


def test_a_pipe_that_nobody_writes_to_is_given_up_in_time(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    began = time.monotonic()
    with pytest.raises(SourceLost, match="does not answer"):
        open_capture(str(tmp_path / "pipe"), CaptureOptions(open_s=0.5), RealClock())
    assert 0.4 < time.monotonic() - began < 2


@pytest.mark.parametrize("scheme", ["tcp", "rtsp", "rtmp", "http"])
def test_a_refused_connection_says_so_without_the_password(scheme: str) -> None:
    with pytest.raises(SourceLost, match="Connection refused") as error:
        open_capture(f"{scheme}://me:hidden@127.0.0.1:{cameras.free_port()}/x", OPTIONS, RealClock())
    assert "hidden" not in clips.message_of(error)


def test_sound_alone_does_not_keep_a_source_alive(clip: Path, tmp_path: Path) -> None:
    """The picture of a camera stops and its sound goes on: no read ever times out."""
    film = tmp_path / "film.ts"
    command = [*cameras.FFMPEG, "-i", clip, "-t", "1", "-an", "-c", "copy", tmp_path / "short.mp4"]
    subprocess.run(list(map(str, command)), check=True, timeout=60)
    joined = [
        "-i",
        tmp_path / "short.mp4",
        "-i",
        clip,
        "-map",
        "0:v",
        "-map",
        "1:a",
        "-c",
        "copy",
        "-f",
        "mpegts",
        film,
    ]
    subprocess.run(list(map(str, [*cameras.FFMPEG, *joined])), check=True, timeout=60)
    port = cameras.free_port()
    hasty = ["-max_interleave_delta", "100000", *cameras.MPEG_TS]  # microseconds that sound waits for a picture
    place = Line(
        f"udp://127.0.0.1:{port}", lambda: cameras.sender(film, f"udp://127.0.0.1:{port}?pkt_size=1316", *hasty)
    )
    with seen(place) as (_, capture):
        reason, _, read = lost_after(capture)
    assert "data comes, but no picture" in reason
    assert 10 < len(read) <= 25


def test_a_restarted_sender_goes_on_in_the_same_container_as_another_connection(clip: Path, tmp_path: Path) -> None:
    larger = cameras.numbered_clip(tmp_path / "larger.mp4", 250, rate=RATE, width=96, height=80)
    port = cameras.free_port()
    url = f"udp://127.0.0.1:{port}?pkt_size=1316"
    with seen(Line(f"udp://127.0.0.1:{port}", lambda: cameras.sender(clip, url))) as (camera, capture):
        before = [capture.read() for _ in range(30)][-1]
        camera.kill()
        with cameras.sender(larger, url):
            while (after := capture.read()).frame.rgb.shape[1] == 64:
                before = after
            following = [capture.read() for _ in range(5)]
    assert after.frame.rgb.shape == (80, 96, 3)
    assert after.connection > before.connection
    assert after.frame.pts_seconds < before.frame.pts_seconds
    assert {each.connection for each in following} == {after.connection}


READ_STDIN = """
    from jokr_rt.errors import JokrError
    from jokr_rt.clock import RealClock
    from jokr_rt.video.capture import CaptureOptions, SourceLost, open_capture
    from tests.cameras import number_of
    try:
        capture = open_capture("-", CaptureOptions(stall_s=1.0, open_s=1.0), RealClock())
        while True:
            print(number_of(capture.read().frame.rgb), end=" ")
    except JokrError as error:
        print(type(error).__name__, error)
"""


def told_of_stdin(command: list[str]) -> str:
    """What READ_STDIN prints of the output of a command."""
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        reader = [sys.executable, "-c", textwrap.dedent(READ_STDIN)]
        done = subprocess.run(reader, stdin=process.stdout, cwd=ROOT, capture_output=True, text=True, timeout=60)
        process.kill()
    assert done.stderr == ""
    return done.stdout


def test_stdin_is_read_to_its_end(clip: Path) -> None:
    sending = [*cameras.FFMPEG, "-re", "-i", str(clip), "-t", "1", "-c", "copy", "-f", "mpegts", "-"]
    assert told_of_stdin(sending) == " ".join(map(str, range(25))) + " SourceEnded stdin: ended\n"


def test_stdin_without_a_video_is_not_tried_again() -> None:
    assert told_of_stdin(["echo", "no video"]) == "InputError stdin: ended before there was a picture\n"


def test_stdin_that_is_silent_is_lost_in_time() -> None:
    assert told_of_stdin(["sleep", "60"]) == "SourceLost stdin: does not answer\n"
