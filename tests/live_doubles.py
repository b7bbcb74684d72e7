"""Live streams without cameras, engines, receivers and without waiting: all on a virtual clock.

Real are the loop, the source's supervision, the sinks' queues and threads, inference and the session around them;
scripted are what they reach for outside: captures, outputs, and a model that passes a number on from frame to picture.
"""

import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jokr_rt.clock import sleep
from jokr_rt.frame import Frame
from jokr_rt.video.capture import Captured, Grabbed, SourceLost
from jokr_rt.video.sound import SoundPacket, SoundTrack

SIDE = 16
TICKS = Fraction(1, 90_000)
TRACK = SoundTrack(48_000, "mono")


@dataclass(eq=False)
class _Waiter:
    thread: threading.Thread
    condition: threading.Condition
    until: float | None


class VirtualClock:
    """Goes on, to the earliest time that somebody waits for, when every thread waits: see `jokr_rt.clock.Clock`.

    Threads that were there before it do not count. One that joins another waits, too.
    """

    def __init__(self) -> None:
        self._now = 1000.0
        self._waiters: list[_Waiter] = []
        self._lock = threading.Lock()
        self._before = {thread for thread in threading.enumerate() if thread is not threading.current_thread()}
        self._ended = False
        self._driver = threading.Thread(target=self._drive, name="virtual-clock", daemon=True)

    def now(self) -> float:
        return self._now

    def wait(self, condition: threading.Condition, seconds: float | None) -> bool:
        until = None if seconds is None else self._now + max(0.0, seconds)
        waiter = _Waiter(threading.current_thread(), condition, until)
        with self._lock:
            self._waiters.append(waiter)
        condition.wait()
        with self._lock:
            self._waiters.remove(waiter)
        return until is None or self._now < until

    @contextmanager
    def running(self) -> Iterator["VirtualClock"]:
        """Within the block time goes on."""
        self._driver.start()
        try:
            yield self
        finally:
            self._ended = True
            self._driver.join()

    def others(self) -> list[threading.Thread]:
        """Threads that came after it, but for its own and the caller's."""
        mine = self._before | {self._driver, threading.current_thread()}
        return [thread for thread in threading.enumerate() if thread not in mine]

    def _drive(self) -> None:
        while not self._ended:
            if not self._go_on():
                time.sleep(2e-5)

    def _go_on(self) -> bool:
        with self._lock:
            waiters = list(self._waiters)
        timed = [waiter for waiter in waiters if waiter.until is not None]
        if not timed or not self._all_wait(waiters):
            return False
        first = min(timed, key=lambda waiter: waiter.until or 0.0)
        if not first.condition.acquire(blocking=False):
            return False
        try:
            self._now = max(self._now, first.until or 0.0)
            first.condition.notify_all()
        finally:
            first.condition.release()
        return True

    def _all_wait(self, waiters: Sequence[_Waiter]) -> bool:
        """Whether nobody runs, and nobody was woken that has not got to run yet."""
        waiting = {waiter.thread for waiter in waiters}
        frames = sys._current_frames()
        for thread in threading.enumerate():
            if thread in self._before or thread is self._driver or thread in waiting:
                continue
            if thread.ident is None or not _joins(frames.get(thread.ident)):
                return False
        for condition in {waiter.condition for waiter in waiters}:
            if not condition.acquire(blocking=False):
                return False
            try:
                asleep = len(condition._waiters)  # type: ignore[attr-defined]  # what `notify` wakes is taken off it
            finally:
                condition.release()
            if asleep != sum(waiter.condition is condition for waiter in waiters):
                return False
        with self._lock:
            return waiters == self._waiters


def _joins(frame: Any) -> bool:
    return frame is not None and frame.f_code.co_name in ("join", "_wait_for_tstate_lock")


def picture(number: int) -> NDArray[np.uint8]:
    """A picture (SIDE, SIDE, 3) that shows a number below 2**24."""
    rgb = np.empty((SIDE, SIDE, 3), np.uint8)
    rgb[:] = number >> 16, number >> 8 & 255, number & 255
    return rgb


def number_of(rgb: NDArray[np.uint8]) -> int:
    """What `picture` shows."""
    red, green, blue = (int(level) for level in rgb[0, 0])
    return red << 16 | green << 8 | blue


class NumberModel:
    """In place of a `LiveModel`: a pose is the number that a frame shows, and is drawn as that number's picture.

    before: called with "extract" or "draw" and the number; it may take time, and raise. lost: numbers of the frames in
    which there is no creature. shift: added to the number that is drawn. familiar: in place of a `Familiarity`.
    """

    size = SIDE
    is_loading = False

    def __init__(
        self,
        before: Callable[[str, int], None] = lambda stage, number: None,
        lost: Sequence[int] = (),
        shift: int = 0,
        familiar: Any = None,
    ) -> None:
        self._before, self._lost, self._shift, self._familiar = before, lost, shift, familiar
        self.forgotten = 0
        self.batches: list[int] = []

    name = "numbers"

    @property
    def model(self) -> "NumberModel":
        return self

    def familiarity(self) -> Any:
        return self._familiar

    def extract(self, frames: Sequence[NDArray[np.uint8]]) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
        self.batches.append(len(frames))
        found = []
        for frame in frames:
            number = number_of(frame)
            self._before("extract", number)
            found.append(
                (np.array([[number / 2**20, 0.0]], np.float32), np.full(1, number not in self._lost, np.float32))
            )
        return found

    def draw(self, poses: Sequence[NDArray[np.float32]]) -> list[NDArray[np.uint8]]:
        numbers = [round(float(pose[0, 0]) * 2**20) for pose in poses]
        for number in numbers:
            self._before("draw", number)
        return [picture(number + self._shift) for number in numbers]

    def forget(self) -> None:
        self.forgotten += 1


@dataclass
class Script:
    """What a source does: each connection a list of steps, the last connection again and again.

    Steps: ("frames", count, seconds between two), ("burst", count), ("corrupt", count) for pictures that cannot be
    drawn, ("stall", seconds), ("lose",) for an error, ("crash",) for a defect of the program, ("refuse",), only as the
    first of a connection: it is not opened.
    """

    connections: list[list[tuple[Any, ...]]]
    captured: dict[int, float] = field(default_factory=dict)
    """When each number was captured."""
    count: int = 0
    opened: int = 0
    closed: int = 0
    sound: bool = False


class ScriptedCapture:
    """See `jokr_rt.live.source.Readable`."""

    is_live = True

    def __init__(self, script: Script, clock: VirtualClock) -> None:
        self._script, self._clock = script, clock
        self.settings: dict[str, str] = {}
        self._connection = script.opened
        self._steps = iter(self._unrolled(script.connections[min(script.opened, len(script.connections) - 1)]))
        script.opened += 1
        first = next(self._steps, ("lose",))
        if first[0] == "refuse":
            script.closed += 1
            raise SourceLost("the camera refuses")
        self._first: tuple[Any, ...] | None = first
        self._start_s = clock.now()
        self._heard: list[tuple[SoundPacket, int]] = []

    @property
    def track(self) -> SoundTrack | None:
        return TRACK if self._script.sound else None

    @staticmethod
    def _unrolled(steps: Sequence[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
        for step in steps:
            if step[0] == "frames":
                for _ in range(step[1]):
                    yield "wait", step[2]
                    yield ("frame",)
            elif step[0] in ("burst", "corrupt"):
                yield from [("frame" if step[0] == "burst" else "bad",)] * step[1]
            else:
                yield step
        yield ("lose",)

    def grab(self) -> Grabbed:
        while True:
            step, self._first = self._first or next(self._steps), None
            if step[0] in ("wait", "stall"):
                sleep(self._clock, step[1])
            elif step[0] == "lose":
                raise SourceLost("the camera is gone")
            elif step[0] == "crash":
                raise RuntimeError("a defect")
            else:
                return self._grabbed(step[0] == "bad")

    def _grabbed(self, is_bad: bool) -> Grabbed:
        now, number = self._clock.now(), self._script.count + 1
        self._script.count = number
        self._script.captured[number] = now
        pts = round((now - self._start_s) * 90_000)

        packet = SoundPacket(TRACK, str(number).encode(), pts * TICKS)
        self._heard.append((packet, self._connection))

        def draw() -> Captured:
            if is_bad:
                raise SourceLost("no way to RGB")
            return Captured(Frame(picture(number), pts, TICKS), now, self._connection)

        return Grabbed(now, self._connection, draw)

    def take_sounds(self) -> list[tuple[SoundPacket, int]]:
        """A packet for each picture, heard when that is seen."""
        heard, self._heard = self._heard, []
        return heard if self._script.sound else []

    def interrupt(self) -> None:
        pass

    def close(self) -> None:
        self._script.closed += 1


class ScriptedOutput:
    """See `jokr_rt.live.sinks.Output`. Keeps what was written, over all openings: (number or None, time_s, now).

    faults: for each write in turn, seconds that it takes, "fail", or "hang", which lasts until `abort`; then no time.
    """

    def __init__(self, clock: VirtualClock, faults: Sequence[float | str] = ()) -> None:
        self._clock, self._faults = clock, iter(faults)
        self.written: list[tuple[NDArray[np.uint8], Fraction, float]] = []
        self.sounds: list[tuple[SoundPacket, Fraction]] = []
        self.opened = self.closed = 0
        self._changed, self._aborts = threading.Condition(), 0

    def open(self, sound: SoundTrack | None) -> None:
        self.opened += 1

    def write(self, image: NDArray[np.uint8], time_s: Fraction) -> None:
        fault = next(self._faults, 0.0)
        if fault == "fail":
            raise OSError("the disk is full")
        if fault == "hang":
            with self._changed:
                aborts = self._aborts
                while self._aborts == aborts:
                    self._clock.wait(self._changed, None)
            raise OSError("aborted")
        if isinstance(fault, float) and fault > 0:
            sleep(self._clock, fault)
        self.written.append((image, time_s, self._clock.now()))

    def write_sound(self, packet: SoundPacket, time_s: Fraction) -> None:
        self.sounds.append((packet, time_s))

    def close(self) -> None:
        self.closed += 1

    def abort(self) -> None:
        with self._changed:
            self._aborts += 1
            self._changed.notify_all()
