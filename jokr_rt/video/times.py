"""When pictures of a live source are shown by its own clock, and when those of a file are due."""

import itertools
import threading
from fractions import Fraction

from av import VideoFrame

from jokr_rt.clock import Clock

_LATE_S = 0.1  # a file that is further behind than this goes on from where it is, instead of rushing

_connections = itertools.count()


class Times:
    """The times of one source: forward within a `connection`, which changes where they jump back.

    shift_s: what is added to a file's own times when it is played again.
    """

    def __init__(self) -> None:
        self.connection = next(_connections)
        self.shift_s = Fraction(0)
        self._end_s: Fraction | None = None
        self._last_s: Fraction | None = None
        self._again = False

    def start_again(self) -> None:
        """The next picture is the first of the file again."""
        self._again = True

    def place(self, picture: VideoFrame) -> tuple[int, Fraction]:
        """(pts, time_base). A picture without a time follows the one before it by its length, or 1/25 s."""
        time_base = picture.time_base or Fraction(1, 90000)
        if self._again:
            self.shift_s = (self._end_s or Fraction(0)) - (picture.pts or 0) * time_base
            self._again = False
        if picture.pts is not None:
            pts = picture.pts + round(self.shift_s / time_base)
        else:
            pts = round((self._end_s or Fraction(0)) / time_base)
        if self._last_s is not None and pts * time_base == self._last_s:
            pts += 1
        elif self._last_s is not None and pts * time_base < self._last_s:
            self.connection = next(_connections)
        self._last_s = pts * time_base
        self._end_s = self._last_s + ((picture.duration or 0) * time_base or Fraction(1, 25))
        return pts, time_base


class Pacer:
    """Lets a file's pictures through when they are due."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._condition = threading.Condition()
        self._interrupted = False
        self._start_s: float | None = None

    def wait(self, pts_s: Fraction) -> None:
        now = self._clock.now()
        if self._start_s is None or now - (self._start_s + float(pts_s)) > _LATE_S:
            self._start_s = now - float(pts_s)
        due_s = self._start_s + float(pts_s)
        with self._condition:
            while not self._interrupted and (left := due_s - self._clock.now()) > 0:
                self._clock.wait(self._condition, left)

    def interrupt(self) -> None:
        with self._condition:
            self._interrupted = True
            self._condition.notify_all()
