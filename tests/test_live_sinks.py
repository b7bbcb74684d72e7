"""A sink's queue, drops and retries with outputs whose every call a test decides."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from fractions import Fraction

import numpy as np
import pytest

from jokr_rt.clock import RealClock
from jokr_rt.errors import OutputError
from jokr_rt.live.sink import Shown, Sink, SinkOptions
from jokr_rt.video.sound import SoundPacket, SoundTrack
from tests.cameras import numbered
from tests.receivers import HEIGHT, WIDTH

SIZE = (WIDTH, HEIGHT)
TRACK = SoundTrack(48000, "mono")


class Clock:
    """Where the waits of a sink's thread take no time at all: `waits` are those that had a limit, in seconds."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.waits: list[float] = []

    def now(self) -> float:
        return self.seconds

    def wait(self, condition: threading.Condition, seconds: float | None) -> bool:
        if seconds is None or threading.current_thread() is threading.main_thread():
            return condition.wait(seconds)
        self.waits.append(seconds)
        self.seconds += seconds
        return False


@dataclass
class Double:
    """An output that notes what it is told. before: called before each write, and may wait or raise."""

    before: Callable[[int], None] = lambda number: None
    fail_opening: bool = False
    got: list[object] = field(default_factory=list)
    aborted: threading.Event = field(default_factory=threading.Event)

    def open(self, sound: SoundTrack | None) -> None:
        if self.fail_opening:
            raise OutputError("double: refused")
        self.got.append("open" if sound is None else sound)

    def write(self, image: np.ndarray, time_s: Fraction) -> None:
        self.before(int(time_s))
        self.got.append(int(time_s))

    def write_sound(self, packet: SoundPacket, time_s: Fraction) -> None:
        self.got.append(packet.data)

    def close(self) -> None:
        self.got.append("close")

    def abort(self) -> None:
        self.aborted.set()


def shown(number: int, live: bool = True, captured_s: float = 0.0) -> Shown:
    return Shown(numbered(number % 256), captured_s, Fraction(number), live)


def until(condition: Callable[[], bool]) -> None:
    """Wait for a thread; the test's own time limit ends it."""
    while not condition():
        time.sleep(0.001)


def one_by_one(sink: Sink, count: int) -> None:
    for number in range(count):
        sink.put(shown(number))
        until(lambda: not sink.queue_depth)


def test_pictures_go_through_in_order_and_all_are_counted() -> None:
    output = Double()
    sink = Sink("double", lambda: output, SinkOptions(), RealClock())
    assert sink.state == "idle"
    one_by_one(sink, 20)
    assert sink.state == "open"
    sink.close(10)
    assert output.got == ["open", *range(20), "close"]
    assert (sink.state, sink.shown, sink.dropped, sink.failures, sink.retries) == ("closed", 20, 0, 0, 0)
    assert not sink.thread.is_alive()
    sink.put(shown(20))
    assert sink.dropped == 1
    sink.close(10)


def test_a_slow_output_gets_the_newest_pictures_and_put_never_waits() -> None:
    go, reached = threading.Event(), threading.Event()

    def stall(number: int) -> None:
        reached.set()
        assert go.wait(60)

    output = Double(stall)
    sink = Sink("double", lambda: output, SinkOptions(queue=3), RealClock())
    sink.put(shown(0))
    assert reached.wait(60)
    for number in range(1, 50):
        sink.put(shown(number))
        assert sink.shown + sink.dropped + sink.queue_depth == number + 1
    assert (sink.queue_depth, sink.dropped) == (4, 46)
    assert sink.busy_s > 0
    go.set()
    sink.close(10)
    assert output.got == ["open", 0, 47, 48, 49, "close"]
    assert (sink.shown, sink.dropped, sink.queue_depth, sink.busy_s) == (4, 46, 0, 0)


def test_a_failed_output_is_opened_again_after_pauses_that_double() -> None:
    made: list[Double] = []

    def make() -> Double:
        made.append(Double(fail_opening=len(made) < 7))
        return made[-1]

    clock = Clock()
    sink = Sink("double", make, SinkOptions(backoff_s=(0.5, 10)), clock)
    sink.put(shown(0))
    until(lambda: sink.shown == 1)
    assert clock.waits == [0.5, 1, 2, 4, 8, 10, 10]
    assert (sink.failures, sink.retries, sink.dropped, sink.reason) == (7, 7, 0, "double: refused")
    assert made[0].got == ["close"]
    until(lambda: sink.state == "open")
    sink.close(10)
    assert sink.state == "closed"


def test_pauses_begin_anew_after_a_picture_was_written() -> None:
    def break_down(number: int) -> None:
        if number % 2:
            raise ValueError("a bug in some library")

    made: list[Double] = []
    clock = Clock()
    sink = Sink("double", lambda: made.append(Double(break_down)) or made[-1], SinkOptions(), clock)
    one_by_one(sink, 7)
    assert clock.waits == [0.5, 0.5, 0.5]
    assert [one.got for one in made] == [["open", 0, "close"], ["open", 2, "close"], ["open", 4, "close"], ["open", 6]]
    assert (sink.shown, sink.dropped, sink.failures, sink.retries) == (4, 3, 3, 3)
    assert sink.reason == "double: ValueError: a bug in some library"
    sink.close(10)


def test_it_gives_up_after_so_many_retries_in_a_row_and_says_so_at_the_end() -> None:
    clock = Clock()
    sink = Sink("double", lambda: Double(fail_opening=True), SinkOptions(retries=3), clock)
    sink.put(shown(0))
    until(lambda: sink.state == "failed")
    assert (sink.failures, sink.retries, clock.waits) == (4, 3, [0.5, 1, 2])
    sink.put(shown(1))
    assert (sink.shown, sink.dropped, sink.queue_depth) == (0, 2, 0)
    with pytest.raises(OutputError, match="double: refused"):
        sink.close(10)
    assert not sink.thread.is_alive()


def test_closing_ends_a_pause_at_once() -> None:
    sink = Sink("double", lambda: Double(fail_opening=True), SinkOptions(backoff_s=(1000, 1000)), RealClock())
    sink.put(shown(0))
    until(lambda: sink.state == "retrying")
    with pytest.raises(OutputError, match="double: refused"):
        sink.close(60)
    assert not sink.thread.is_alive()
    assert (sink.shown, sink.dropped, sink.queue_depth) == (0, 1, 0)


def test_a_sink_that_had_no_picture_opens_nothing() -> None:
    def never() -> Double:
        raise AssertionError

    sink = Sink("double", never, SinkOptions(), RealClock())
    sink.close(10)
    assert (sink.state, sink.failures) == ("closed", 0)


def test_finishing_that_fails_is_an_error() -> None:
    class Unfinished(Double):
        def close(self) -> None:
            raise OutputError("double: cannot be finished")

    sink = Sink("double", Unfinished, SinkOptions(), RealClock())
    one_by_one(sink, 1)
    with pytest.raises(OutputError, match="cannot be finished"):
        sink.close(10)
    assert (sink.shown, sink.failures) == (1, 1)


def test_a_hung_write_is_left_behind_and_another_thread_goes_on() -> None:
    go, made = threading.Event(), []

    def hang(number: int) -> None:
        if number == 1:
            assert go.wait(60)

    def make() -> Double:
        made.append(Double(hang))
        return made[-1]

    sink = Sink("double", make, SinkOptions(), RealClock())
    one_by_one(sink, 1)
    sink.put(shown(1))
    until(lambda: sink.busy_s > 0)
    hung = sink.thread
    sink.restart("double: hung for 5 s")
    assert made[0].aborted.is_set()
    assert (sink.failures, sink.dropped, sink.busy_s, sink.reason) == (1, 1, 0, "double: hung for 5 s")
    sink.put(shown(2))
    until(lambda: sink.shown == 2)
    assert hung.is_alive()
    go.set()
    hung.join(60)
    sink.close(10)
    assert [one.got for one in made] == [["open", 0, 1, "close"], ["open", 2, "close"]]
    assert (sink.shown, sink.dropped, sink.failures, sink.retries) == (2, 1, 1, 1)


def test_closing_a_hung_sink_takes_its_seconds_and_then_force() -> None:
    output = Double()
    output.before = lambda number: None if output.aborted.wait(60) else None
    sink = Sink("double", lambda: output, SinkOptions(), RealClock())
    sink.put(shown(0))
    until(lambda: sink.busy_s > 0)
    sink.put(shown(1))
    with pytest.raises(OutputError, match="double: did not finish within 0.2 s"):
        sink.close(0.2)
    assert output.aborted.is_set()
    assert sink.state == "failed"
    assert sink.shown + sink.dropped == 2
    sink.thread.join(60)


def test_sound_goes_with_its_picture_and_another_track_is_left_out() -> None:
    output = Double()
    sink = Sink("double", lambda: output, SinkOptions(), RealClock())
    sink.sound = TRACK
    for quarter in range(14):
        packet = SoundPacket(TRACK, bytes([quarter]), Fraction(0))
        sink.put_audio(packet, Fraction(quarter, 4))
    sink.put_audio(SoundPacket(replace(TRACK, rate=8000), b"other", Fraction(0)), Fraction(13, 4))
    one_by_one(sink, 4)
    until(lambda: "sound" in sink.reason)
    sink.close(10)
    sounds = [bytes([quarter]) for quarter in range(14)]
    expected = [TRACK, 0, *sounds[:2], 1, *sounds[2:6], 2, *sounds[6:10], 3, *sounds[10:14], "close"]
    assert output.got == expected
    assert sink.reason == "double: goes on without sound, which was not there, or another, when it was opened"


def test_latency_is_of_live_pictures_only() -> None:
    clock = Clock()
    sink = Sink("double", Double, SinkOptions(), clock)
    clock.seconds = 10.0
    sink.put(shown(0, live=False, captured_s=0))
    for number in range(1, 4):
        sink.put(shown(number, captured_s=9.75))
        until(lambda: not sink.queue_depth)
    assert sink.latency.percentile(1) == pytest.approx(0.25, rel=0.02)
    assert sink.latency.percentile(99) == pytest.approx(0.25, rel=0.02)
    sink.close(10)
