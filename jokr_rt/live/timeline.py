"""The stream's own clock: forward only, whatever the source's does."""

from fractions import Fraction

from jokr_rt.frame import Frame

TICK = Fraction(1, 1000)
"""The least time between two pictures, seconds: what the coarsest container (Matroska) can tell apart."""

MOST_APART_S = 1.0
"""A source's clock that is further than this from ours, since the connection began, has jumped and is laid anew."""


class Timeline:
    """Lays pictures and sound on one clock in seconds that begins with the first picture.

    Within a connection the source's times count, so that the rhythm of capture and of the sound is kept; a new
    connection begins when its first frame was captured, on ours. Pictures that are not of the source lie where they are
    shown.

    last: where the last picture lies. connection: of the last frame, -1 before the first; they are counted up.
    """

    def __init__(self) -> None:
        self._start_s: float | None = None
        self.last = Fraction(-1)
        self.connection = -1
        self._offset = Fraction(0)

    def place(self, frame: Frame, captured_s: float, connection: int, paced: bool = True) -> Fraction:
        """Of a captured frame. paced: whether its source shows frames when they are due, so that its clock can jump."""
        pts, ours = frame.pts * frame.time_base, self._since_start(captured_s)
        if connection != self.connection or (paced and abs(pts + self._offset - ours) > MOST_APART_S):
            self.connection, self._offset = connection, ours - pts
        return self._forward(pts + self._offset)

    def place_sound(self, pts_s: Fraction, connection: int) -> Fraction | None:
        """Of a packet; None where no picture of its connection was placed yet."""
        return pts_s + self._offset if connection == self.connection else None

    def place_cover(self, now_s: float) -> Fraction:
        """Of a picture that is shown while there is no source."""
        return self._forward(self._since_start(now_s))

    def _since_start(self, seconds: float) -> Fraction:
        if self._start_s is None:
            self._start_s = seconds
        return Fraction(round((seconds - self._start_s) * 90_000), 90_000)

    def _forward(self, time: Fraction) -> Fraction:
        self.last = max(time, self.last + TICK)
        return self.last
