"""Supervision of a source on a virtual clock: newest picture first, reconnection, and what is counted."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jokr_rt.clock import Clock, RealClock, sleep
from jokr_rt.errors import InputError, UsageError
from jokr_rt.live.source import LiveSource
from jokr_rt.video.capture import Captured, CaptureOptions, SourceEnded, SourceLost
from jokr_rt.video.sound import SoundTrack
from tests.live_doubles import Script, ScriptedCapture, VirtualClock, number_of

OPTIONS = CaptureOptions(stall_s=2.0)
FOR_EVER = ("frames", 10_000, 0.1)
Steps = list[tuple[Any, ...]]


class Scripted:
    """An opener of scripted captures; keeps when it was called. errors: raised by the first openings, in turn."""

    def __init__(self, connections: list[Steps], errors: list[Exception] | None = None) -> None:
        self.script = Script(connections)
        self.kind: type[ScriptedCapture] = ScriptedCapture
        self.errors = iter(errors or [])
        self.opened_s: list[float] = []
        self.options: list[CaptureOptions] = []

    def __call__(self, source: str, options: CaptureOptions, clock: Clock) -> ScriptedCapture:
        assert isinstance(clock, VirtualClock)
        self.opened_s.append(clock.now())
        self.options.append(options)
        if (error := next(self.errors, None)) is not None:
            raise error
        return self.kind(self.script, clock)


@contextmanager
def live(opener: Scripted, **options: Any) -> Iterator[tuple[LiveSource, VirtualClock]]:
    clock = VirtualClock()
    with clock.running():
        source = LiveSource("scripted", OPTIONS, clock, opener=opener, **options)
        try:
            yield source, clock
        finally:
            source.close()
            assert not [thread for thread in clock.others() if thread.name == "jokr-source"]
            assert source.state == "ended"
            assert source.captured == source.taken + source.dropped
            assert opener.script.opened == opener.script.closed


def taken(source: LiveSource, seconds: float = 1.0) -> Captured:
    captured = source.take(seconds)
    assert captured is not None
    return captured


def number(source: LiveSource, seconds: float = 1.0) -> int:
    return number_of(taken(source, seconds).frame.rgb)


def test_the_newest_picture_wins_and_older_ones_are_counted() -> None:
    with live(Scripted([[("burst", 10), FOR_EVER]])) as (source, clock):
        sleep(clock, 0.05)
        assert number(source) == 10
        assert (source.captured, source.taken, source.dropped) == (10, 1, 9)
        assert number(source) == 11
        sleep(clock, 0.55)
        assert number(source) == 16
        assert (source.captured, source.taken, source.dropped) == (16, 3, 13)


def test_a_picture_is_handed_out_once_and_waited_for_so_long() -> None:
    with live(Scripted([[("burst", 1), ("stall", 1.0), FOR_EVER]])) as (source, clock):
        assert number(source) == 1
        began = clock.now()
        assert source.take(0.25) is None
        assert clock.now() - began == pytest.approx(0.25)
        assert number(source, 5.0) == 2
        assert clock.now() - began == pytest.approx(1.1)


def test_a_picture_keeps_the_time_of_its_capture() -> None:
    opener = Scripted([[("burst", 1), FOR_EVER]])
    with live(opener) as (source, clock):
        sleep(clock, 0.05)
        captured = taken(source)
        assert captured.captured_s == opener.script.captured[1]
        assert clock.now() - captured.captured_s == pytest.approx(0.05)


def test_it_is_opened_again_after_growing_waits() -> None:
    refused = [[("refuse",)]] * 8
    opener = Scripted([[("burst", 1)], *refused, [FOR_EVER]])
    with live(opener) as (source, clock):
        assert number(source) == 1
        sleep(clock, 0.1)
        assert source.state == "lost"
        assert source.reason == "the camera is gone"
        sleep(clock, 1.0)
        assert source.reason == "the camera refuses"
        sleep(clock, 60.0)
        assert source.state == "live"
        assert source.reason == ""
        assert source.reconnects == 1
    waits = [round(later - earlier, 6) for earlier, later in zip(opener.opened_s, opener.opened_s[1:], strict=False)]
    assert waits == [0.5, 1, 2, 4, 8, 10, 10, 10, 10]


def test_the_waits_are_short_again_once_it_was_there() -> None:
    opener = Scripted([[("refuse",)], [("refuse",)], [("frames", 3, 0.1)], [("refuse",)], [FOR_EVER]])
    with live(opener) as (source, clock):
        assert source.state == "connecting"
        sleep(clock, 10)
        assert source.reconnects == 1
    waits = [round(later - earlier, 6) for earlier, later in zip(opener.opened_s, opener.opened_s[1:], strict=False)]
    assert waits == [0.5, 1, 0.8, 1]  # the third connection lasted 0.3 s


def test_it_gives_up_after_so_many_retries_in_a_row() -> None:
    opener = Scripted([[("burst", 1)], [("refuse",)]])
    with live(opener, retries=3) as (source, clock):
        sleep(clock, 30)
        assert source.state == "ended"
        assert source.reason == "the camera refuses; gave up after 3 retries"
        assert number(source) == 1  # what it had is not lost
        assert source.take(60.0) is None
    assert len(opener.opened_s) == 4


def test_a_source_that_was_never_there_is_still_connecting() -> None:
    with live(Scripted([[("refuse",)]])) as (source, clock):
        began = clock.now()
        sleep(clock, 3)
        assert source.state == "connecting"
        assert source.reason == "the camera refuses"
        assert source.lost_since_s == pytest.approx(began, abs=0.1)


def test_each_connection_has_its_own_number() -> None:
    with live(Scripted([[("burst", 1)], [("burst", 1)], [FOR_EVER]])) as (source, _):
        connections = [taken(source, 5.0).connection for _ in range(3)]
        assert connections == sorted(set(connections))
        assert source.reconnects == 2


def test_an_end_is_no_failure() -> None:
    opener = Scripted([], [SourceEnded("film.mp4: ended")])
    with live(opener) as (source, clock):
        sleep(clock, 1)
        assert (source.state, source.reason) == ("ended", "")
    assert len(opener.opened_s) == 1


@pytest.mark.parametrize(
    ("error", "reason"), [(InputError("no video"), "no video"), (ZeroDivisionError("oh"), "ZeroDivisionError: oh")]
)
def test_what_trying_again_does_not_mend_ends_it(error: Exception, reason: str) -> None:
    opener = Scripted([], [error])
    with live(opener) as (source, clock):
        sleep(clock, 1)
        assert source.state == "ended"
        assert reason in source.reason
    assert len(opener.opened_s) == 1


def test_a_defect_while_reading_ends_it_with_its_name() -> None:
    with live(Scripted([[("burst", 1), ("crash",)]])) as (source, clock):
        sleep(clock, 1)
        assert source.state == "ended"
        assert "RuntimeError: a defect" in source.reason


def test_a_read_that_hangs_counts_as_lost_and_may_come_back() -> None:
    with live(Scripted([[("burst", 1), ("stall", 60.0), FOR_EVER]])) as (source, clock):
        number(source)
        last_s = clock.now()
        sleep(clock, 1.9)
        assert source.state == "live"
        sleep(clock, 0.2)
        assert source.state == "lost"
        assert source.lost_since_s == pytest.approx(last_s)
        sleep(clock, 60.0)
        assert source.state == "live"
        assert source.lost_since_s is None


def test_while_paused_pictures_are_dropped_and_the_next_is_new() -> None:
    with live(Scripted([[FOR_EVER]])) as (source, clock):
        assert number(source) == 1
        sleep(clock, 0.15)
        source.pause()
        assert source.take(1.0) is None
        source.resume()
        first = number(source)
        assert first == source.captured
        assert first >= 12
        assert source.dropped == first - 2


def test_sound_is_asked_for_as_the_first_connection_had_it() -> None:
    class Sounding(ScriptedCapture):
        track = SoundTrack(48_000, "stereo")

    opener = Scripted([[("burst", 1)], [FOR_EVER]])
    opener.kind = Sounding
    with live(opener) as (source, clock):
        sleep(clock, 2)
        assert source.sound == Sounding.track
    assert [options.sound_like for options in opener.options] == [None, Sounding.track]


@pytest.mark.parametrize("wrong", [{"backoff": (0, 1)}, {"backoff": (2, 1)}, {"retries": -1}])
def test_options_that_cannot_be_meant_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        LiveSource("scripted", OPTIONS, RealClock(), opener=Scripted([]), **wrong)


def test_closing_leaves_a_read_that_nothing_can_end(caplog: pytest.LogCaptureFixture) -> None:
    class Hung(ScriptedCapture):
        def grab(self) -> Any:
            wakes.wait()
            raise SourceLost("awake")

    wakes, clock = threading.Event(), RealClock()
    source = LiveSource("hung", OPTIONS, clock, opener=lambda *_: Hung(Script([[FOR_EVER]]), clock))  # type: ignore[arg-type]
    source.close(0.2)
    assert source.state == "ended"
    assert "left behind" in caplog.text
    wakes.set()
    source._thread.join(10)
    assert not source._thread.is_alive()


EVENTS = st.one_of(
    st.tuples(st.just("frames"), st.integers(1, 20), st.floats(0.01, 0.5)),
    st.tuples(st.just("burst"), st.integers(1, 20)),
    st.tuples(st.just("stall"), st.floats(0.1, 5)),
    st.just(("lose",)),
)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.lists(EVENTS, min_size=1, max_size=4) | st.just([("refuse",)]), min_size=1, max_size=5),
    st.floats(0.01, 1.0),
)
def test_whatever_happens_pictures_come_in_order_and_add_up(connections: list[Steps], between_s: float) -> None:
    seen, times = [], []
    with live(Scripted(connections)) as (source, clock):
        for _ in range(30):
            if (captured := source.take(between_s)) is not None:
                seen.append(number_of(captured.frame.rgb))
                times.append((captured.connection, captured.frame.pts_seconds))
            sleep(clock, between_s)
    assert seen == sorted(set(seen))
    assert [connection for connection, _ in times] == sorted(connection for connection, _ in times)
    assert len(seen) == source.taken
