"""Live for a long time, as a process, on real sockets: python -m tests.soak MINUTES. Exits with 1 if a bar is missed.

ffmpeg sends a picture that flashes and a sound that beeps every second; `jokr live` retargets it, pastes it back over
the source, records it, serves it and pushes it to another ffmpeg. The camera is killed now and then. Bars: memory grows
by less than 1 MB an hour after the first third, handles and threads not at all; flash and beep stay within 40 ms, by
the median of each minute: where a picture was dropped, its flash is seen on the next. The slope of memory is the median
of those between all pairs of minutes (Theil 1950, Sen 1968): one step, as a first reconnection may be, is no slope.
The recording is Matroska, for the index of an MP4 grows in memory until it is closed.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np

from tests.cameras import FFMPEG, Camera, free_port, wait_until_bound
from tests.process import ROOT, command

KILL_EVERY_S, LOOK_EVERY_S = 300, 2
MOST_MB_AN_HOUR, MOST_APART_S = 1.0, 0.040

_PICTURE = "color=c=0x404040:s=256x192:r=25,drawbox=color=white:t=fill:enable='lt(mod(t,1),0.1)'"
_SOUND = "aevalsrc='0.8*sin(2*PI*880*t)*lt(mod(t,1),0.1)':s=48000"


def camera(port: int) -> Camera:
    """Flashes and beeps, at once, every second."""
    started = Camera(
        [*FFMPEG, "-re", "-f", "lavfi", "-i", _PICTURE, "-re", "-f", "lavfi", "-i", _SOUND]
        + ["-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-g", "25", "-c:a", "aac"]
        + ["-f", "mpegts", "-muxdelay", "0", "-flush_packets", "1", f"tcp://127.0.0.1:{port}?listen=1"]
    )
    wait_until_bound(port)
    return started


def state_of(process: int) -> dict[str, float]:
    """Resident memory in MB, open handles and threads."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines())
    return {
        "memory_mb": int(fields["VmRSS"].split()[0]) / 1024,
        "handles": len(os.listdir(f"/proc/{process}/fd")),
        "threads": int(fields["Threads"]),
    }


def run(minutes: float, folder: Path) -> list[dict[str, float]]:
    """Figures of the process, every `LOOK_EVERY_S`."""
    source, receiver = free_port(), free_port()
    listening = Camera([*FFMPEG, "-f", "mpegts", "-i", f"tcp://127.0.0.1:{receiver}?listen=1", "-f", "null", "-"])
    wait_until_bound(receiver)
    outputs = str(folder / "rec.mkv"), f"tcp://127.0.0.1:{receiver}", f"preview:{free_port()}"
    arguments = ["live", "examples/puppets.jokr", "--input", f"tcp://127.0.0.1:{source}", "--paste", "--hold", "0"]
    arguments += [*(part for output in outputs for part in ("--output", output)), "--watchdog", "30", "--json"]
    seen, filming = [], camera(source)
    with (folder / "figures.jsonl").open("w") as figures, listening:
        live = subprocess.Popen(command(*arguments), cwd=ROOT, stdout=figures)
        try:
            start = killed = time.monotonic()
            while (now := time.monotonic()) - start < 60 * minutes:
                time.sleep(LOOK_EVERY_S)
                seen.append({"seconds": now - start} | state_of(live.pid))
                if now - killed > KILL_EVERY_S:
                    filming.kill()
                    filming, killed = camera(source), now
            live.send_signal(signal.SIGTERM)
            assert live.wait(60) == 0, "it did not end by itself"
        finally:
            live.kill()
            filming.kill()
    return seen


def report(seen: list[dict[str, float]], folder: Path) -> dict[str, Any]:
    """What the bars are about."""
    settled = [each for each in seen if each["seconds"] > seen[-1]["seconds"] / 3]
    memory = by_minute([each["memory_mb"] for each in seen], 60 // LOOK_EVERY_S)
    third = len(settled) // 3
    grown = {
        what: max(each[what] for each in settled[-third:]) - max(each[what] for each in settled[:third])
        for what in ("handles", "threads")
    }
    apart = flash_and_beep(folder / "rec.mkv")
    last = json.loads((folder / "figures.jsonl").read_text().splitlines()[-1])
    return {
        "minutes": round(seen[-1]["seconds"] / 60, 1),
        "memory_mb_by_minute": [round(value, 2) for value in memory],
        "memory_mb_an_hour": round(60 * slope(memory[len(memory) // 3 :]), 2),
        **grown,
        "beeps": len(apart),
        "apart_ms": [round(1e3 * float(value), 1) for value in (np.min(apart), np.max(apart))],
        "apart_ms_by_minute": [round(1e3 * value, 1) for value in by_minute(apart, 60)],
        "captured": last["captured"],
        "shown": last["shown"],
        "dropped": last["dropped"],
        "reconnects": last["reconnects"],
        "covers": last["covers"],
    }


def by_minute(values: list[float], count: int) -> list[float]:
    """Medians of so many values in a row each."""
    return [float(np.median(values[first : first + count])) for first in range(0, len(values), count)]


def slope(values: list[float]) -> float:
    """By Theil and Sen, of values one apart."""
    return float(np.median([(values[b] - values[a]) / (b - a) for b in range(len(values)) for a in range(b)]))


def flash_and_beep(recording: Path) -> list[float]:
    """Seconds from each flash to its beep."""
    flashes = list(_onsets((time_s, level > 128) for time_s, level in _brightness(recording)))
    beeps = np.array(list(_onsets((time_s, level > 0.1) for time_s, level in _loudness(recording))))
    apart = [float(beeps[np.abs(beeps - flash).argmin()] - flash) for flash in flashes]
    return [value for value in apart if abs(value) < 0.5]  # at a kill one of the two may be missing


def _brightness(recording: Path) -> Iterator[tuple[float, float]]:
    """Of the picture's corner, which the creature does not reach."""
    with av.open(str(recording)) as container:
        for frame in container.decode(video=0):
            yield float(frame.pts * frame.time_base), float(frame.to_ndarray(format="gray")[30:40, 2:12].mean())


def _loudness(recording: Path) -> Iterator[tuple[float, float]]:
    """Of each millisecond of sound."""
    with av.open(str(recording)) as container:
        for frame in container.decode(audio=0):
            samples = np.abs(frame.to_ndarray().astype(np.float32).reshape(-1))
            step = frame.sample_rate // 1000
            for index in range(0, len(samples) - step + 1, step):
                yield (
                    float(frame.pts * frame.time_base) + index / frame.sample_rate,
                    float(samples[index:][:step].max()),
                )


def _onsets(levels: Iterator[tuple[float, bool]]) -> Iterator[float]:
    """Times at which it becomes true after having been false for a while."""
    false_since: float | None = None
    for (time_s, was), (later_s, now) in pairwise(levels):
        if not was and false_since is None:
            false_since = time_s
        if now and false_since is not None and later_s - false_since > 0.3:
            yield later_s
        if now:
            false_since = None


def main(minutes: float) -> int:
    with tempfile.TemporaryDirectory() as name:
        found = report(run(minutes, Path(name)), Path(name))
    print(json.dumps(found, indent=1))
    late = max(abs(value) for value in found["apart_ms_by_minute"]) / 1e3
    met = found["memory_mb_an_hour"] < MOST_MB_AN_HOUR and found["handles"] <= 0 and found["threads"] <= 0
    met = met and late <= MOST_APART_S and found["beeps"] > 30 * minutes
    print("every bar is met" if met else "a bar is missed")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1])))
