"""A source that is kept alive: read in a thread of its own, reopened when it is lost, the newest picture handed out."""

import logging
import threading
from collections import deque
from collections.abc import Iterable
from dataclasses import replace
from typing import Protocol

from jokr_rt.clock import Clock
from jokr_rt.errors import InputError, JokrError, UsageError
from jokr_rt.video.capture import (
    Captured,
    CaptureOptions,
    Grabbed,
    SourceEnded,
    SourceLost,
    check_source,
    open_capture,
)
from jokr_rt.video.sound import SoundPacket, SoundTrack

_log = logging.getLogger(__name__)

_CLOSE_S = 3.0
_SOUND_QUEUE = 1000  # packets; 20 s of AAC


class Readable(Protocol):
    """What `LiveSource` needs of a `jokr_rt.video.capture.Capture`, which says what each does.

    All is called in the reading thread, `interrupt` in others.
    """

    @property
    def is_live(self) -> bool: ...

    @property
    def settings(self) -> dict[str, str]: ...

    @property
    def track(self) -> SoundTrack | None: ...

    def grab(self) -> Grabbed: ...

    def take_sounds(self) -> Iterable[tuple[SoundPacket, int]]: ...

    def interrupt(self) -> None: ...

    def close(self) -> None: ...


class Opener(Protocol):
    """`open_capture`, or what a test has in its place."""

    def __call__(self, source: str, options: CaptureOptions, clock: Clock) -> Readable: ...


class LiveSource:
    """The newest picture of a source that may be lost and come back.

    A thread opens `source`, reads it all the time, keeps one picture, and after a loss opens it again: after backoff[0]
    seconds, then twice as long each time up to backoff[1], until it is there or `retries` attempts in a row have
    failed (None: for ever). A source that has not been there yet counts as one that was lost. A file that is not played
    at its own rate waits for whoever takes its pictures.

    state: "connecting" until it was there for the first time, then "live" or "lost", at last "ended": a file or stdin
    that is through, retries that are used up, an error that trying again does not mend, or `close`.
    reason: why it is not live, one line; "" where it is, and for an end that is no failure.
    lost_since_s: `Clock.now()` of the last picture, or of the start, while there is none; else None.
    captured: pictures decoded; taken: those handed out; dropped: those that nobody took in time.
    reconnects: how often the source came back, a sender that started again within one connection included.
    settings: of the last connection, see `Capture`. paced: whether its pictures come when they are due, as those
    of a file do only at its own rate. sound: track of all its sound, or None.

    Raises what `check_source` raises; everything later is in `state` and `reason`.
    """

    def __init__(
        self,
        source: str,
        options: CaptureOptions,
        clock: Clock,
        *,
        retries: int | None = None,
        backoff: tuple[float, float] = (0.5, 10.0),
        opener: Opener = open_capture,
    ) -> None:
        if not 0 < backoff[0] <= backoff[1]:
            raise UsageError(f"backoff must go from above 0 s to at least as much, not {backoff[0]} to {backoff[1]}")
        if retries is not None and retries < 0:
            raise UsageError(f"retries must not be negative, not {retries}")
        if opener is open_capture:
            check_source(source, options)
        self._source, self._options, self._clock, self._opener = source, options, clock, opener
        self._retries, self._backoff = retries, backoff
        self._changed = threading.Condition()
        self._closing = self._paused = False
        self._capture: Readable | None = None
        self._slot: Grabbed | None = None
        self._state = "connecting"
        self._last_s = clock.now()
        self._connection: int | None = None
        self._attempts = 0
        self.reason = "not open yet"
        self.captured = self.dropped = self.taken = self.reconnects = 0
        self.settings: dict[str, str] = {}
        self.paced = True
        self.sound: SoundTrack | None = None
        self._sounds: deque[tuple[SoundPacket, int]] = deque(maxlen=_SOUND_QUEUE)
        self._thread = threading.Thread(target=self._run, name="jokr-source", daemon=True)
        self._thread.start()

    @property
    def state(self) -> str:
        with self._changed:
            return "lost" if self._state == "live" and self._is_silent() else self._state

    def _is_silent(self) -> bool:
        """Whether a read hangs that should have ended: a driver may hang for good, and nothing can interrupt it."""
        capture = self._capture
        waiting = capture is not None and capture.is_live and not self._closing
        return waiting and self._clock.now() - self._last_s > self._options.stall_s

    @property
    def lost_since_s(self) -> float | None:
        return None if self.state == "live" else self._last_s

    def take(self, seconds: float) -> Captured | None:
        """The newest picture that was not taken yet; waits for one at most so long. None where there is none."""
        until = self._clock.now() + seconds
        with self._changed:
            while self._slot is None:
                left = until - self._clock.now()
                if left <= 0 or self._state == "ended":
                    return None
                self._clock.wait(self._changed, left)
            grabbed, self._slot = self._slot, None
            self.taken += 1
            self._changed.notify_all()
        return grabbed.draw()

    def take_sounds(self) -> list[tuple[SoundPacket, int]]:
        """What was heard since the last call, the newest 20 s of it; with the connection on whose clock it is."""
        with self._changed:
            sounds = list(self._sounds)
            self._sounds.clear()
        return sounds

    def pause(self) -> None:
        """Hand out nothing: a file stands still, a live source goes on and its pictures are dropped."""
        with self._changed:
            self._paused = True
            self._drop_slot()

    def resume(self) -> None:
        with self._changed:
            self._paused = False
            self._changed.notify_all()

    def close(self, seconds: float = _CLOSE_S) -> None:
        """End the thread. One that hangs in the system is left behind after so many seconds: it ends if it wakes up."""
        with self._changed:
            self._closing = True
            self._drop_slot()
            self._changed.notify_all()
            capture = self._capture
        if capture is not None:
            capture.interrupt()
        self._thread.join(seconds)
        if self._thread.is_alive():
            _log.warning(
                "%s: a read does not end; its thread is left behind", self.settings.get("source", "the source")
            )
        with self._changed:
            self._end("")

    def _drop_slot(self) -> None:
        self.dropped += self._slot is not None
        self._slot = None

    def _run(self) -> None:
        try:
            self._keep_alive()
        except SourceEnded:
            reason = ""
        except JokrError as error:
            reason = str(error)
        except Exception as error:
            _log.exception("a source failed")
            reason = f"a defect in reading the source: {type(error).__name__}: {error}"
        else:
            return
        with self._changed:
            self._end(reason)

    def _end(self, reason: str) -> None:
        if self._state != "ended":
            self._state, self.reason = "ended", reason
        self._changed.notify_all()

    def _keep_alive(self) -> None:
        """Raises SourceEnded at an end, and what it ends by where there is no more to hope for."""
        while not self._closing:
            try:
                self._connect()
            except SourceEnded:
                raise
            except SourceLost as loss:
                self._wait_after(loss)

    def _connect(self) -> None:
        """One connection, until it is lost."""
        # Sinks that are open have the sound of the first connection.
        capture = self._opener(self._source, replace(self._options, sound_like=self.sound), self._clock)
        try:
            with self._changed:
                self._capture, self.paced = capture, capture.is_live or self._options.realtime
                self.settings, self.sound = capture.settings, self.sound or capture.track
            while not self._closing:
                self._hold(capture)
                self._publish(capture.grab())
                with self._changed:
                    self._sounds.extend(capture.take_sounds())
        finally:
            with self._changed:
                self._capture = None
            capture.close()

    def _hold(self, capture: Readable) -> None:
        """A file stands still while paused; one that is not played at its own rate, until its last picture is taken."""
        if capture.is_live:
            return
        with self._changed:
            while not self._closing and (self._paused or (self._slot is not None and not self._options.realtime)):
                self._clock.wait(self._changed, None)

    def _publish(self, grabbed: Grabbed) -> None:
        with self._changed:
            self.captured += 1
            if grabbed.connection != self._connection:
                self.reconnects += self._connection is not None
                self._connection = grabbed.connection
            self._last_s, self._attempts = grabbed.captured_s, 0
            if not self._closing:
                self._state, self.reason = "live", ""
            self._drop_slot()
            self._slot = grabbed
            if self._paused or self._closing:
                self._drop_slot()
            self._changed.notify_all()

    def _wait_after(self, loss: SourceLost) -> None:
        """Raises InputError where no retry is left."""
        with self._changed:
            self._state = "connecting" if self._connection is None else "lost"
            self.reason = str(loss)
            self._changed.notify_all()
            if self._attempts == self._retries:
                raise InputError(f"{loss}; gave up after {self._attempts} retries")
            delay_s = min(self._backoff[0] * 2 ** min(self._attempts, 30), self._backoff[1])
            self._attempts += 1
            _log.info("%s; trying again in %g s", loss, delay_s)
            until = self._clock.now() + delay_s
            while not self._closing and (left := until - self._clock.now()) > 0:
                self._clock.wait(self._changed, left)
