"""One sink of a live stream: a thread and a bounded queue, so that what is slow or dead slows nothing else."""

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from threading import Condition, Thread, current_thread
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from jokr_rt.clock import Clock
from jokr_rt.errors import JokrError, OutputError
from jokr_rt.timing import Histogram
from jokr_rt.video.sound import SoundPacket, SoundTrack

_SOUND_AHEAD_S = Fraction(1, 4)  # of the picture that it is written with
_SOUNDS = 1000  # packets that wait at most, about 20 s
_SECONDS_AFTER_FORCE = 1.0


@dataclass(frozen=True)
class Shown:
    """A picture for the sinks.

    image: (H, W, 3) uint8 RGB; nobody changes it any more. captured_s: `Clock.now()` when its source picture was
    decoded. time_s: on the stream's own clock, which goes forward over reconnects.
    live: false for a slate, and for a picture that is frozen or held.
    """

    image: NDArray[np.uint8]
    captured_s: float
    time_s: Fraction
    live: bool


@dataclass(frozen=True)
class SinkOptions:
    """What all sinks of a stream have in common.

    rate: nominal pictures per second. bitrate: of recordings and streams, bits per second at most; None for constant
    quality. keyframe_s: seconds between their keyframes. queue: pictures that wait at most. stall_s: seconds that
    connecting to a network, or a write to it, may take. retries: openings in a row after a failure, before a sink gives
    up; None for no limit. backoff_s: seconds before the first of them, which double up to the second number.
    overwrite: replace an existing recording.
    """

    rate: Fraction = Fraction(25)
    bitrate: int | None = None
    keyframe_s: float = 2.0
    queue: int = 4
    stall_s: float = 5.0
    retries: int | None = None
    backoff_s: tuple[float, float] = (0.5, 10.0)
    overwrite: bool = False


class Output(Protocol):
    """What a sink writes to, in its thread: opened once, written to, closed. It may block, and raise what it likes.

    close: also after something was raised. abort: from another thread, frees a call that hangs, where that can be done.
    """

    def open(self, sound: SoundTrack | None) -> None: ...

    def write(self, image: NDArray[np.uint8], time_s: Fraction) -> None: ...

    def write_sound(self, packet: SoundPacket, time_s: Fraction) -> None: ...

    def close(self) -> None: ...

    def abort(self) -> None: ...


class Sink:
    """Hands pictures and sound to an output, which `make` makes: one at the first picture, and one after each failure.

    name: for people, without passwords and stream keys.
    sound: the track that outputs are opened with, set before the first picture. Packets of another are left out, and
    `reason` says so.
    state: "idle" before the first picture, then "connecting", "open" and "retrying"; at last "closed", or "failed".
    shown, dropped: pictures written, and not: put = shown + dropped + queue_depth.
    failures: of opening, writing and finishing. retries: openings after one. reason: of the last failure, one line.
    latency: seconds from captured_s to written, of live pictures.
    """

    def __init__(self, name: str, make: Callable[[], Output], options: SinkOptions, clock: Clock) -> None:
        self.name = name
        self.sound: SoundTrack | None = None
        self.state = "idle"
        self.reason = ""
        self.shown = self.dropped = self.failures = self.retries = 0
        self.latency = Histogram()
        self._make, self._options, self._clock = make, options, clock
        self._changed = Condition()
        self._pictures: deque[Shown] = deque()
        self._sounds: deque[tuple[SoundPacket, Fraction]] = deque(maxlen=_SOUNDS)
        self._in_hand = False
        self._busy_since: float | None = None
        self._failures_in_a_row = 0
        self._closing = False
        self._output: Output | None = None
        with self._changed:
            self._thread = self._start()

    @property
    def queue_depth(self) -> int:
        """Pictures that wait or are being written."""
        return len(self._pictures) + self._in_hand

    @property
    def busy_s(self) -> float:
        """How long the present write has taken; 0 between two, and while connecting or waiting to try again."""
        since = self._busy_since
        return 0.0 if since is None else self._clock.now() - since

    @property
    def thread(self) -> Thread:
        """The one that writes, for a stack dump."""
        return self._thread

    def put(self, shown: Shown) -> None:
        """Hand over a picture. Never blocks: where the queue is full, its oldest is dropped."""
        with self._changed:
            if self._closing or self.state == "failed":
                self.dropped += 1
                return
            if len(self._pictures) == self._options.queue:
                self._pictures.popleft()
                self.dropped += 1
            self._pictures.append(shown)
            self._changed.notify_all()

    def put_audio(self, packet: SoundPacket, time_s: Fraction) -> None:
        """Hand over a piece of sound for `time_s` on the clock of `Shown.time_s`. Never blocks.

        It is written with the picture of its time. Best before that is put: a muxer holds a picture until there is
        sound behind it.
        """
        with self._changed:
            self._sounds.append((packet, time_s))

    def restart(self, reason: str) -> None:
        """Leave a write that hangs behind, and its thread with it: a failure, after which another thread opens anew."""
        with self._changed:
            if self._closing or self.state == "failed":
                return
            output, self._output = self._output, None
            self._note_failure(reason)
            self._thread = self._start()
        if output is not None:
            output.abort()

    def close(self, seconds: float) -> None:
        """Write what waits, finish the file or stream and end the thread; after so many seconds by force.

        Raises OutputError where the sink had failed and not recovered, or force was needed. May be called twice.
        """
        with self._changed:
            self._closing = True
            self._changed.notify_all()
            in_time = self._has_ended(within=seconds)
            if not in_time and self._output is not None:
                self._output.abort()
            if not in_time:
                self._has_ended(within=_SECONDS_AFTER_FORCE)
                self._note_failure(f"{self.name}: did not finish within {seconds:g} s; its end may be missing")
                self._end("failed")
        if in_time:
            self._thread.join()
        if self.state == "failed":
            raise OutputError(self.reason)

    def _start(self) -> Thread:
        thread = Thread(target=self._work, name=f"jokr-sink {self.name}", daemon=True)
        thread.start()
        return thread

    # The rest with `_changed` held, but for what the thread does: `_work`, `_serve` and `_write`.

    def _is_current(self) -> bool:
        """Whether the calling thread is the sink's own, and not one that was left behind."""
        return self._thread is current_thread()

    def _has_ended(self, within: float) -> bool:
        until = self._clock.now() + within
        while self.state not in ("closed", "failed") and (left := until - self._clock.now()) > 0:
            self._clock.wait(self._changed, left)
        return self.state in ("closed", "failed")

    def _note_failure(self, reason: str) -> None:
        """The picture in hand is lost."""
        self.failures += 1
        self._failures_in_a_row += 1
        self.reason = reason
        self._lay_down(shown=False)

    def _lay_down(self, shown: bool) -> None:
        self.shown += self._in_hand and shown
        self.dropped += self._in_hand and not shown
        self._in_hand, self._busy_since = False, None

    def _end(self, state: str) -> None:
        self.dropped += len(self._pictures)
        self._pictures.clear()
        self._sounds.clear()
        self.state, self._output = state, None
        self._changed.notify_all()

    def _work(self) -> None:
        while True:
            try:
                if self._await_picture():
                    self._serve()
                break
            except Exception as error:  # whatever it is, it stays in this sink
                reason = str(error) if isinstance(error, JokrError) else f"{self.name}: {type(error).__name__}: {error}"
                with self._changed:
                    if not self._is_current() or not self._can_retry(reason):
                        return
        with self._changed:
            if self._is_current():
                self._end("closed")

    def _await_picture(self) -> bool:
        """False when there will be none for this thread."""
        with self._changed:
            while self._is_current() and not self._pictures and not self._closing:
                self._clock.wait(self._changed, None)
            return self._is_current() and bool(self._pictures)

    def _can_retry(self, reason: str) -> bool:
        """Wait for the next try; false when there is none, and the sink has ended."""
        self._note_failure(reason)
        retries, (first, longest) = self._options.retries, self._options.backoff_s
        if not self._closing and (retries is None or self._failures_in_a_row <= retries):
            self.state, self._output = "retrying", None
            until = self._clock.now() + min(first * 2.0 ** min(self._failures_in_a_row - 1, 30), longest)
            while self._is_current() and not self._closing and (left := until - self._clock.now()) > 0:
                self._clock.wait(self._changed, left)
            if not self._is_current():
                return False
        if self._closing or self.state != "retrying":
            self._end("failed")
            return False
        return True

    def _serve(self) -> None:
        """Open an output and write to it until the end."""
        output = self._make()
        with self._changed:
            if not self._is_current():
                return
            self._output, sound = output, self.sound
            self.retries += self._failures_in_a_row > 0
            self.state = "connecting"
        try:
            output.open(sound)
            with self._changed:
                if self._is_current():
                    self.state = "open"
            while self._await_picture():
                self._write(output, sound)
        except BaseException:
            with suppress(Exception):  # the first error counts
                output.close()
            raise
        output.close()

    def _write(self, output: Output, track: SoundTrack | None) -> None:
        with self._changed:
            if not self._is_current() or not self._pictures:
                return
            shown = self._pictures.popleft()
            self._in_hand, self._busy_since = True, self._clock.now()
            sounds = []
            while self._sounds and self._sounds[0][1] <= shown.time_s + _SOUND_AHEAD_S:
                sounds.append(self._sounds.popleft())
        output.write(shown.image, shown.time_s)
        for packet, time_s in sounds:
            if packet.track == track:
                output.write_sound(packet, time_s)
            else:
                self.reason = f"{self.name}: goes on without sound, which was not there, or another, when it was opened"
        with self._changed:
            if not self._is_current():
                return
            self._lay_down(shown=True)
            self._failures_in_a_row = 0
            if shown.live:
                self.latency.add(self._clock.now() - shown.captured_s)
