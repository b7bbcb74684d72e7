"""What is left of a recording when the recorder is killed, or the disk is full."""

import os
import random
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import av

from tests import clips
from tests.cameras import number_of
from tests.process import ROOT, is_running
from tests.receivers import probe

_RECORD = """
import os, sys, time
from fractions import Fraction
from jokr_rt.clock import RealClock
from jokr_rt.live.sinks import Shown, SinkOptions, open_sink
from tests.cameras import numbered
from tests.recordings import copied

def record(path, packets, silent_from):
    clock, written = RealClock(), os.open(path + ".written", os.O_CREAT | os.O_WRONLY)
    sink = open_sink(path, (64, 48), SinkOptions(rate=Fraction(50)), clock)
    sink.sound = packets[0].track
    for number in range(3000):
        at = Fraction(number, 50)
        while packets and packets[0].pts_s <= at:
            packet = packets.pop(0)
            if packet.pts_s < silent_from:
                sink.put_audio(packet, packet.pts_s)
        sink.put(Shown(numbered(number % 256), clock.now(), at, True))
        while sink.queue_depth:
            time.sleep(0.001)
        os.write(written, b"%d\\n" % number)
        time.sleep(0.005)

_, packets = copied(sys.argv[1])
for line in sys.stdin:
    path, silent_from = line.split()
    if not (pid := os.fork()):
        record(path, packets, float(silent_from))
        os._exit(0)
    print(pid, flush=True)
    os.waitpid(pid, 0)
"""


def test_killed_twenty_times_every_recording_plays_and_lacks_at_most_its_last_second(tmp_path: Path) -> None:
    source = clips.video(tmp_path / "camera.mp4", 60, audio="aac")
    moments, lost = random.Random(0), []
    command = [sys.executable, "-c", _RECORD, str(source)]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as recorder:
        assert recorder.stdin is not None
        assert recorder.stdout is not None
        for one in range(20):
            path = tmp_path / f"{one}.mp4"
            # In some the sound ends before the recorder does: pictures must not wait for it.
            print(path, 0.5 if one % 2 else 100, file=recorder.stdin)
            pid = int(recorder.stdout.readline())
            while not path.exists() or path.stat().st_size < 1000:  # until the first fifth of a second is there
                time.sleep(0.001)
            time.sleep(moments.uniform(0, 0.4))
            os.kill(pid, signal.SIGKILL)
            while is_running(pid):
                time.sleep(0.001)
            lost.append(_lost(path))
    assert max(lost) <= 1
    print("seconds lost:", *(f"{float(seconds):.2f}" for seconds in sorted(lost)))


def _lost(path: Path) -> Fraction:
    """It plays, by ffmpeg as well, with every picture from the first on. Returns how much of its end is missing."""
    probe(path)
    with av.open(str(path)) as container:
        frames = [(number_of(frame.to_ndarray(format="rgb24")), frame.pts) for frame in container.decode(video=0)]
    assert frames == [(number % 256, number * 90000 // 50) for number in range(len(frames))]
    written = int(Path(f"{path}.written").read_text().splitlines()[-1])
    return Fraction(written - (len(frames) - 1), 50)


_FULL_DISK = """
import resource, sys, time
from fractions import Fraction
from jokr_rt.clock import RealClock
from jokr_rt.live.sinks import Shown, SinkOptions, open_sink
from tests import clips

resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))  # what a write beyond it meets is an error
clock = RealClock()
sink = open_sink(sys.argv[1], (160, 120), SinkOptions(rate=Fraction(20), backoff_s=(0.01, 0.01)), clock)
for number, picture in enumerate(clips.noise(60)):
    sink.put(Shown(picture, clock.now(), Fraction(number, 20), True))
    while sink.queue_depth:
        time.sleep(0.001)
sink.close(5)
print(sink.failures, sink.retries, sink.shown, sink.dropped, sink.reason, sep="|")
"""


def test_after_a_failure_it_goes_on_in_another_file_and_nothing_written_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "rec.mp4"
    done = subprocess.run([sys.executable, "-c", _FULL_DISK, path], cwd=ROOT, capture_output=True, text=True)
    assert done.stderr == ""
    failures, retries, shown, dropped, reason = done.stdout.strip().split("|")
    assert int(failures) >= 1
    assert int(retries) == int(failures)
    assert int(shown) + int(dropped) == 60
    assert reason == f"{path}: cannot be written (File too large)" or "rec-" in reason
    files, kept = sorted(tmp_path.iterdir()), 0
    assert len(files) == int(failures) + 1
    for file in files:
        probe(file)
        with av.open(str(file)) as container:
            kept += sum(1 for _ in container.decode(video=0))
    assert kept >= int(shown) - 5 * int(failures)  # a fragment of 0.2 s each
