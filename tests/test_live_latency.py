"""From the moment that a camera has a picture to the moment that its answer can be read, through real sockets."""

import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from fractions import Fraction

import av
import numpy as np

from tests.cameras import number_of, numbered
from tests.process import ROOT

BUNDLE = ROOT / "examples" / "puppets.jokr"
RATE, COUNT, WARM_UP, SIDE = 25, 200, 50, 128
FRAME_MS, SLACK_MS = 1e3 / RATE, 20.0

HELD = 2
"""Pictures between the camera and capture: MPEG-TS says that one is whole when the next begins, and so does H.264."""


class Camera:
    """Sends numbered pictures as MPEG-TS to whoever calls; `sent` is when each was there to be sent."""

    def __init__(self) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self.address = f"tcp://127.0.0.1:{self._server.getsockname()[1]}"
        self.sent: dict[int, float] = {}
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._send)
        self._thread.start()

    def _send(self) -> None:
        connection, _ = self._server.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        options = {"flush_packets": "1", "muxdelay": "0"}
        with (
            connection,
            connection.makefile("wb", buffering=0) as pipe,
            av.open(pipe, "w", format="mpegts", container_options=options) as container,
        ):
            stream = container.add_stream("libx264", RATE, {"tune": "zerolatency", "preset": "ultrafast", "g": "10"})
            stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
            start = time.monotonic()
            for number in range(COUNT):
                time.sleep(max(0.0, start + number / RATE - time.monotonic()))
                picture = av.VideoFrame.from_ndarray(numbered(number, 128, 96), "rgb24")
                picture.pts, picture.time_base = number, Fraction(1, RATE)
                self.sent[number] = time.monotonic()
                container.mux(stream.encode(picture))
            self._closing.wait(60)

    def close(self) -> None:
        self._closing.set()
        self._thread.join(60)
        self._server.close()


def arrivals(process: "subprocess.Popen[bytes]", side: int) -> Iterator[tuple[int, float]]:
    """(number, when) of each picture that comes out."""
    assert process.stdout is not None
    while len(data := process.stdout.read(side * side * 3)) == side * side * 3:
        now = time.monotonic()
        yield number_of(np.frombuffer(data, np.uint8).reshape(side, side, 3)), now


def measure() -> dict[str, float]:
    """p95 in milliseconds of the whole way, of its parts, and how many pictures were seen."""
    camera = Camera()
    command = [sys.executable, "-m", "tests.relay", camera.address, str(BUNDLE)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    seen: dict[int, float] = {}
    try:
        for number, now in arrivals(process, SIDE):
            seen[number] = now
            if number >= COUNT - 5:
                break
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
        camera.close()
    figures = json.loads(errors.splitlines()[-1])
    late = [1e3 * (seen[number] - camera.sent[number]) for number in seen if number >= WARM_UP]
    stages = {stage: times["p95"] for stage, times in figures["stages_ms"].items()}
    return {
        "sent to read": float(np.percentile(late, 95)),
        "captured to written": figures["sinks"][0]["latency_ms"]["p95"],
        "inference": stages["extract"] + stages["draw"],
        "pictures": len(late),
        **stages,
    }


def test_latency_is_inference_and_a_frame_and_a_bit() -> None:
    """One of three runs: other work on the machine only ever adds."""
    runs = []
    while len(runs) < 3:
        run = measure()
        runs.append(run)
        assert run["pictures"] > (COUNT - WARM_UP) * 0.8
        allowed_ms = run["inference"] + FRAME_MS + SLACK_MS
        if run["captured to written"] <= allowed_ms and run["sent to read"] <= allowed_ms + (HELD - 1) * FRAME_MS:
            print(json.dumps(run))
            return
    raise AssertionError(runs)
