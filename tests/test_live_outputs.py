"""Real sinks, beside each other and on real sockets and pipes."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import av
import pytest

from jokr_rt.clock import RealClock
from jokr_rt.errors import OutputError, UsageError
from jokr_rt.live.sink import Shown, Sink, SinkOptions
from jokr_rt.live.sinks import RawFrames, open_sink
from tests import clips
from tests.cameras import FFMPEG, free_port, number_of, numbered
from tests.process import ROOT
from tests.receivers import HEIGHT, RATE, WIDTH, receiver

SIZE = (WIDTH, HEIGHT)


def until(condition: Callable[[], bool]) -> None:
    """Wait for a thread; the test's own time limit ends it."""
    while not condition():
        time.sleep(0.001)


@pytest.mark.parametrize(
    ("spec", "kind", "words"),
    [
        ("srt://h:1", UsageError, "cannot write to srt://"),
        ("http://me:password@h/x", UsageError, "http://me:***@h/x: cannot write to http://"),
        ("rec.txt", UsageError, ".mp4, .mov or .mkv"),
        ("nowhere/rec.mp4", OutputError, "there is no folder"),
        ("preview:99999", OutputError, "port 99999"),
        ("/dev/video986", OutputError, "modprobe v4l2loopback"),
    ],
)
def test_a_sink_that_cannot_be_is_refused_at_once_in_one_line(spec: str, kind: type, words: str) -> None:
    with pytest.raises(kind) as error:
        open_sink(spec, SIZE, SinkOptions(), RealClock())
    assert words in clips.message_of(error)


def test_a_dead_a_stalled_and_a_slow_sink_do_not_touch_the_others(tmp_path: Path) -> None:
    """Real ones: nobody listens to the first, the second's receiver never reads, the third's is just fine."""
    reading, writing = os.pipe()  # a pipe holds 64 KiB, seven pictures
    options = SinkOptions(rate=RATE, queue=8, backoff_s=(0.05, 0.1))
    with receiver("tcp") as receiving:
        dead = open_sink(f"rtmp://127.0.0.1:{free_port()}/live/key", SIZE, options, RealClock())
        stalled = Sink("pipe", lambda: RawFrames(writing), options, RealClock())
        streaming = open_sink(receiving.address, SIZE, options, RealClock())
        recording = open_sink(str(tmp_path / "rec.mp4"), SIZE, options, RealClock())
        clock, sinks = RealClock(), (dead, stalled, streaming, recording)
        for number in range(60):
            at = clock.now()
            for sink in sinks:
                sink.put(Shown(numbered(number), at, number / RATE, True))
            assert clock.now() - at < 1
            until(lambda: not recording.queue_depth and not streaming.queue_depth)
            time.sleep(0.02)
        streaming.close(20)
        recording.close(20)
        assert "Connection refused" in dead.reason
        for sink in (dead, stalled):
            with pytest.raises(OutputError):
                sink.close(0.1)
        os.close(reading)
        stalled.thread.join(20)
        os.close(writing)
        assert receiving.numbers() == list(range(60))
    with av.open(str(tmp_path / "rec.mp4")) as container:
        got = [number_of(frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
    assert got == list(range(60))
    assert (dead.shown, dead.dropped) == (0, 60)
    assert dead.failures > 2
    assert stalled.shown + stalled.dropped == 60
    assert 5 <= stalled.shown <= 8
    assert (streaming.failures, recording.failures) == (0, 0)


def test_a_receiver_that_comes_back_is_pushed_to_again() -> None:
    port, clock = free_port(), RealClock()
    sink = open_sink(f"tcp://127.0.0.1:{port}", SIZE, SinkOptions(rate=RATE, backoff_s=(0.05, 0.1)), clock)
    put = 0

    def send(until: Callable[[], bool]) -> None:
        nonlocal put
        while not until():
            sink.put(Shown(numbered(put % 256), clock.now(), put / RATE, True))
            put += 1
            time.sleep(0.02)

    with receiver("tcp", port=port):
        send(lambda: sink.shown >= 20)
    send(lambda: sink.state == "retrying")
    written = sink.shown
    with receiver("tcp", port=port) as again:
        send(lambda: sink.shown >= written + 30)
        sink.close(20)
        numbers = again.numbers()
    assert len(numbers) >= 30
    assert all((later - sooner) % 256 in range(1, 128) for sooner, later in pairwise(numbers))
    assert numbers[-1] == (put - 1) % 256
    assert sink.retries >= 1
    assert (sink.state, sink.shown + sink.dropped) == ("closed", put)


_RAW = """
import sys, time
from fractions import Fraction
from jokr_rt.errors import OutputError
from jokr_rt.clock import RealClock
from jokr_rt.live.sinks import Shown, SinkOptions, open_sink
from tests.cameras import numbered
sink = open_sink("-", (64, 48), SinkOptions(), RealClock())
for number in range(int(sys.argv[1])):
    sink.put(Shown(numbered(number % 256), 0.0, Fraction(number), True))
    while sink.queue_depth and sink.state != "failed":
        time.sleep(0.0005)
try:
    sink.close(5)
except OutputError as error:
    print(error, file=sys.stderr)
print(sink.state, sink.shown, sink.dropped, file=sys.stderr)
"""


def test_raw_frames_reach_a_foreign_reader_of_stdout_whole() -> None:
    command = [*FFMPEG, "-f", "rawvideo", "-pix_fmt", "rgb24", "-video_size", "64x48", "-i", "-", "-f", "framemd5", "-"]
    with subprocess.Popen(
        [sys.executable, "-c", _RAW, "30"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as source:
        out = subprocess.run(command, stdin=source.stdout, capture_output=True, check=True, text=True).stdout
        assert source.stderr is not None
        assert source.stderr.read() == "closed 30 0\n"
    sums = re.findall(r"\b[0-9a-f]{32}\b", out)
    given = subprocess.run(
        command, input=b"".join(numbered(number).tobytes() for number in range(30)), capture_output=True, check=True
    ).stdout.decode()
    assert len(sums) == 30
    assert sums == re.findall(r"\b[0-9a-f]{32}\b", given)


def test_a_reader_of_stdout_that_goes_away_ends_the_sink_for_good() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _RAW, "100"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as source:
        assert source.stdout is not None
        assert source.stderr is not None
        source.stdout.read(64 * 48 * 3)
        source.stdout.close()
        reason, counts = source.stderr.read().decode().splitlines()
    assert reason == "stdout: cannot be written (Broken pipe)"
    state, *numbers = counts.split()
    assert state == "failed"
    assert sum(map(int, numbers)) == 100
