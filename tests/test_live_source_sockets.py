"""A camera that is killed and comes back, seen through a `LiveSource`; files; a process that ends while it waits."""

import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pytest

from jokr_rt.clock import RealClock
from jokr_rt.live.source import LiveSource
from jokr_rt.video.capture import Captured, CaptureOptions
from tests import cameras, clips
from tests.cameras import Camera, number_of
from tests.live_doubles import VirtualClock

OPTIONS = CaptureOptions(stall_s=1.0, open_s=8.0)
PATIENCE_S = 60.0


def until(source: LiveSource, fits: Callable[[Captured], bool]) -> Captured:
    """The first picture from now on that fits."""
    began = time.monotonic()
    while time.monotonic() - began < PATIENCE_S:
        if (captured := source.take(0.5)) is not None and fits(captured):
            return captured
    raise AssertionError(f"nothing came: {source.state}, {source.reason}")


def until_lost(source: LiveSource) -> None:
    began = time.monotonic()
    while source.state != "lost":
        assert time.monotonic() - began < PATIENCE_S, "it was never lost"
        source.take(0.05)


@pytest.mark.parametrize("kind", ["tcp", "rtsp"])
def test_a_camera_that_is_killed_five_times_is_found_again(kind: str, tmp_path: Path) -> None:
    small = cameras.numbered_clip(tmp_path / "small.mp4", 100)
    large = cameras.numbered_clip(tmp_path / "large.mp4", 100, width=96, height=80)
    port = cameras.free_port()

    def start(clip: Path) -> Camera:
        if kind == "rtsp":
            return cameras.rtsp_camera(clip, port)
        return cameras.sender(clip, f"tcp://127.0.0.1:{port}?listen=1")  # the source tries until it is there

    address = f"tcp://127.0.0.1:{port}" if kind == "tcp" else f"rtsp://127.0.0.1:{port}/camera"
    source = LiveSource(address, OPTIONS, RealClock(), backoff=(0.1, 0.2))
    connections, sizes = [], []
    try:
        for clip in (small, small, large, small, small, small):
            with start(clip):
                captured = until(source, lambda each: each.connection not in connections)
                connections.append(captured.connection)
                sizes.append(captured.frame.rgb.shape[:2])
                assert number_of(until(source, lambda each: True).frame.rgb) < 100
                assert source.settings["size"] == f"{sizes[-1][1]}x{sizes[-1][0]}"
            until_lost(source)
            assert source.reason
    finally:
        source.close()
    assert source.reconnects == 5
    assert connections == sorted(connections)
    assert sizes == [(48, 64), (48, 64), (80, 96), (48, 64), (48, 64), (48, 64)]
    assert source.captured == source.taken + source.dropped


def test_closing_ends_a_read_of_a_camera_that_hangs(tmp_path: Path) -> None:
    clip, port = cameras.numbered_clip(tmp_path / "clip.mp4", 100), cameras.free_port()
    with cameras.listening(clip, f"tcp://127.0.0.1:{port}?listen=1") as camera:
        source = LiveSource(f"tcp://127.0.0.1:{port}", OPTIONS, RealClock())
        until(source, lambda each: True)
        camera.freeze()
        began = time.monotonic()
        source.close()
        assert time.monotonic() - began < 2
    assert not source._thread.is_alive()


def test_closing_wakes_a_file_that_waits_for_its_next_picture(tmp_path: Path) -> None:
    slow = clips.video(tmp_path / "slow.mkv", 3, rate=10, times=[0, 100, 60_000], time_base=Fraction(1, 1000))
    source = LiveSource(str(slow), CaptureOptions(realtime=True), RealClock())
    until(source, lambda each: each.frame.pts > 0)
    began = time.monotonic()
    source.close()
    assert time.monotonic() - began < 1
    assert not source._thread.is_alive()


def test_a_file_that_is_not_played_at_its_own_rate_waits_to_be_taken(tmp_path: Path) -> None:
    film = cameras.numbered_clip(tmp_path / "film.mp4", 60)
    source = LiveSource(str(film), CaptureOptions(), RealClock())
    numbers = []
    while source.state != "ended" or source.captured > len(numbers):
        if (captured := source.take(0.5)) is not None:
            numbers.append(number_of(captured.frame.rgb))
    source.close()
    assert numbers == [*range(60)]
    assert source.dropped == 0
    assert source.reason == ""


def test_a_file_stands_still_while_paused(tmp_path: Path) -> None:
    film = cameras.numbered_clip(tmp_path / "film.mp4", 100, rate=10)
    clock = VirtualClock()
    with clock.running():
        source = LiveSource(str(film), CaptureOptions(realtime=True), clock)
        until(source, lambda each: number_of(each.frame.rgb) == 10)
        source.pause()
        assert source.take(0.35) is None  # one picture was on its way, and is dropped
        assert source.captured == 12
        source.resume()
        assert number_of(until(source, lambda each: True).frame.rgb) == 12
        source.close()
    assert (source.taken, source.captured - source.taken) == (12, source.dropped)


@pytest.mark.parametrize("scheme", ["tcp", "rtsp", "rtmp", "http"])
def test_a_process_ends_while_a_silent_server_is_waited_for(tmp_path: Path, scheme: str) -> None:
    code = """
        import logging, sys, time
        from jokr_rt.clock import RealClock
        from jokr_rt.live.source import LiveSource
        from jokr_rt.video.capture import CaptureOptions
        logging.basicConfig(stream=sys.stdout, format="%(message)s")
        source = LiveSource(sys.argv[1], CaptureOptions(open_s=500.0), RealClock())
        time.sleep(0.3)
        began = time.monotonic()
        source.close(0.2)
        print(source.state, time.monotonic() - began < 5, source._thread.is_alive())
    """
    with cameras.silent_server() as port:
        began = time.monotonic()
        done = clips.run_python(code, tmp_path, f"{scheme}://127.0.0.1:{port}/x")
    assert done.returncode == 0
    assert "left behind" in done.stdout
    assert done.stdout.splitlines()[-1] == "ended True True"
    assert time.monotonic() - began < 60
