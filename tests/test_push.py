"""Streams pushed over real sockets to receivers that are not ours, which hang, die, or are not there."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from jokr_rt.errors import InputError, OutputError
from jokr_rt.video.live_mux import Coding
from jokr_rt.video.push import PROTOCOLS, Push, public_name
from tests import clips
from tests.cameras import free_port, numbered
from tests.process import ROOT, children, is_running
from tests.receivers import HEIGHT, RATE, WIDTH, probe, receiver
from tests.recordings import copied

CODING = Coding(WIDTH, HEIGHT, RATE)
NOISE = Coding(640, 480, RATE, bitrate=200_000_000)
"""So much that the buffers between us and a receiver that stalls are full at once."""


def push(address: str, count: int = 60) -> None:
    """Numbered pictures, at twice their rate."""
    sent = Push(address, CODING, stall_s=20)
    sent.open(None)
    for number in range(count):
        sent.write(numbered(number), 100 + number / RATE)
        time.sleep(0.025)
    sent.close()


def send_all(sent: Push, pictures: Iterable[NDArray[np.uint8]]) -> None:
    """As fast as it goes."""
    for number, picture in enumerate(pictures, start=1):
        sent.write(picture, number / RATE)


@pytest.mark.parametrize("scheme", ["tcp", "udp", "rtmp", "rtsp"])
def test_a_foreign_receiver_gets_every_picture_once_and_in_order(scheme: str) -> None:
    with receiver(scheme) as receiving:
        push(receiving.address)
        assert receiving.numbers() == list(range(60))


@pytest.mark.parametrize("scheme", ["tcp", "rtmp", "rtsp"])
def test_a_foreign_receiver_gets_the_times_and_the_sound_beside_them(tmp_path: Path, scheme: str) -> None:
    source = clips.video(tmp_path / "camera.mp4", 40, rate=20, audio="aac")
    track, packets = copied(source)
    times = [Fraction(number, 20) + Fraction(number % 3, 100) for number in range(40)]
    path = tmp_path / "got.mkv"
    with receiver(scheme, path) as receiving:
        sent = Push(receiving.address, CODING, stall_s=20)
        sent.open(track)
        for number, at in enumerate(times):
            sent.write(numbered(number), 7 + at)
            while packets and packets[0].pts_s <= at + Fraction(1, 10):
                packet = packets.pop(0)
                sent.write_sound(packet, 7 + packet.pts_s)
            time.sleep(0.02)
        sent.close()
        receiving.process.communicate(timeout=60)
    found = probe(path)["packets"]
    seconds = {
        kind: [float(one["pts_time"]) for one in found if one["codec_type"] == kind] for kind in ("video", "audio")
    }
    assert len(seconds["video"]) == 40
    assert len(seconds["audio"]) >= 85
    start = seconds["video"][0]
    for at, wanted in zip(seconds["video"], times, strict=True):
        assert at - start == pytest.approx(float(wanted), abs=0.0021)  # FLV and Matroska round to a millisecond each
    # The second packet of the sound is due with the first picture; the first, before it, is left out.
    assert seconds["audio"][0] - start == pytest.approx(0, abs=0.0021)
    assert all(
        later - sooner == pytest.approx(1024 / 48000, abs=0.0021) for sooner, later in pairwise(seconds["audio"])
    )


def test_where_nobody_listens_one_line_says_so() -> None:
    for scheme in ("tcp", "rtmp", "rtsp"):
        address = f"{scheme}://127.0.0.1:{free_port()}/live/secret"
        sent = Push(address, CODING, stall_s=20)
        with pytest.raises(OutputError) as error:
            sent.open(None)
        assert "Connection refused" in clips.message_of(error)
        assert (scheme == "rtmp") == ("secret" not in str(error.value))
        with pytest.raises(OutputError):
            sent.close()


def test_a_peer_that_accepts_and_says_nothing_ends_the_attempt_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        sent = Push(f"rtmp://127.0.0.1:{silent.getsockname()[1]}/live/key", CODING, stall_s=1)
        started = time.monotonic()
        with pytest.raises(OutputError, match="the receiver stalled"):
            sent.open(None)
        assert 1 <= time.monotonic() - started < 15


@pytest.mark.parametrize("scheme", ["tcp", "rtmp", "rtsp"])
def test_a_receiver_that_stalls_ends_in_an_error_in_time(scheme: str) -> None:
    before = set(children(os.getpid()))  # another file's test may have left some
    with receiver(scheme) as receiving:
        sent = Push(receiving.address, NOISE, stall_s=1)
        sent.open(None)
        assert len(set(children(os.getpid())) - before) == 2
        picture = np.random.default_rng(0).integers(0, 256, (480, 640, 3)).astype(np.uint8)
        sent.write(picture, Fraction(0))
        receiving.process.send_signal(signal.SIGSTOP)
        with pytest.raises(OutputError):
            send_all(sent, (np.roll(picture, number, axis=1) for number in range(1, 2000)))
        with pytest.raises(OutputError):
            sent.close()
        assert set(children(os.getpid())) - before == {receiving.process.pid}  # ours is gone


def test_a_receiver_that_dies_ends_in_an_error() -> None:
    for scheme in ("tcp", "rtmp", "rtsp"):
        with receiver(scheme) as receiving:
            sent = Push(receiving.address, CODING, stall_s=20)
            sent.open(None)
            sent.write(numbered(0), Fraction(0))
            receiving.process.kill()
            receiving.process.wait()
            with pytest.raises(OutputError, match=r"cannot be written|ended with") as error:
                send_all(sent, (numbered(number % 256) for number in range(1, 2000)))
            clips.message_of(error)
            with pytest.raises(OutputError):
                sent.close()


def test_what_hangs_can_be_killed_from_another_thread() -> None:
    """Even a child that can do nothing any more, as one that is stopped."""
    before = set(children(os.getpid()))
    with receiver("tcp") as receiving:
        sent = Push(receiving.address, CODING, stall_s=1000)
        sent.open(None)
        (child,) = set(children(os.getpid())) - before - {receiving.process.pid}
        os.kill(child, signal.SIGSTOP)
        killer = threading.Timer(0.3, sent.abort)
        killer.start()
        with pytest.raises(OutputError, match="ended with -9"):
            send_all(sent, [numbered(0)])
        killer.join()
        with pytest.raises(OutputError):
            sent.close()
        assert not is_running(child)


def test_an_address_that_listens_waits_for_its_viewer_as_long_as_it_takes() -> None:
    port = free_port()
    sent = Push(f"tcp://127.0.0.1:{port}?listen=1", CODING, stall_s=0.5)
    opening = threading.Thread(target=sent.open, args=(None,))
    opening.start()
    opening.join(1.5)
    assert opening.is_alive()
    with socket.create_connection(("127.0.0.1", port)) as viewer:
        opening.join()
        sent.write(numbered(1), Fraction(0))
        assert viewer.recv(1) == b"\x47"  # every packet of a transport stream begins with it
        sent.close()


_PARENT = """
import sys, time
from fractions import Fraction
from jokr_rt.video.push import Push
from tests.cameras import numbered
from tests.test_push import CODING
sent = Push(sys.argv[1], CODING, stall_s=2)
sent.open(None)
sent.write(numbered(0), Fraction(0))
print("sent", flush=True)
time.sleep(1000)
"""


def test_the_child_does_not_outlive_its_parent_and_its_command_line_holds_no_secret() -> None:
    with receiver("rtmp") as receiving:
        command = [sys.executable, "-c", _PARENT, receiving.address]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as parent:
            assert parent.stdout is not None
            assert parent.stdout.readline() == b"sent\n"
            (child,) = children(parent.pid)
            assert b"127.0.0.1" not in Path(f"/proc/{child}/cmdline").read_bytes()
            parent.kill()
        while is_running(child):  # the test's own time limit ends this
            time.sleep(0.02)


def test_a_picture_of_another_size_is_refused_and_the_stream_goes_on() -> None:
    with receiver("tcp") as receiving:
        sent = Push(receiving.address, CODING, stall_s=20)
        sent.open(None)
        with pytest.raises(InputError, match="does not fit"):
            sent.write(clips.picture(48, 64), Fraction(0))
        for number in range(10):
            sent.write(numbered(number), number / RATE)
        sent.close()
        assert receiving.numbers() == list(range(10))


def test_names_hold_no_secrets() -> None:
    assert public_name("rtmp://live.example/app/stream-key?token=1") == "rtmp://live.example/app/***"
    assert public_name("rtsp://me:password@camera.example:554/in") == "rtsp://me:***@camera.example:554/in"
    assert public_name("udp://239.0.0.1:1234?ttl=2") == "udp://239.0.0.1:1234"
    assert public_name("tcp://[::1]:1234") == "tcp://[::1]:1234"
    assert set(PROTOCOLS) == {"rtmp", "rtmps", "rtsp", "rtsps", "udp", "tcp"}
