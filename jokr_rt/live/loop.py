"""One live stream: the newest frame is taken, drawn and handed to every sink; and what is shown when there is none."""

import math
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from queue import Empty, SimpleQueue

from jokr_rt.clock import Clock, sleep
from jokr_rt.errors import InputError, JokrError, OutputError
from jokr_rt.live.compose import Picture
from jokr_rt.live.options import LiveOptions
from jokr_rt.live.picture import Pictures
from jokr_rt.live.sink import Shown, Sink
from jokr_rt.live.slate import banner, slate
from jokr_rt.live.source import LiveSource
from jokr_rt.live.timeline import Timeline
from jokr_rt.timing import Histogram
from jokr_rt.video import write_png
from jokr_rt.video.capture import Captured
from jokr_rt.video.sound import SoundPacket

COVER_S = 0.1
"""Seconds between two pictures while there is no source, and the longest that the loop sleeps."""

CLOSE_S = 5.0
"""Seconds that a sink gets to write what waits, and to finish its file or stream."""

ACTIONS = ("pause", "next", "keypoints", "learn", "snapshot", "record")
"""What a key can have a stream do."""


class Stream:
    """Source, pictures and sinks of one stream, in a thread of its own. `run` is that thread's work, to the end.

    Of the frames that the source captured, it dropped some, `stale` were too old to be drawn, `failed` could not be,
    and `shown` were shown, `held` of them without the creature being found; `covers` are pictures of no frame. latency:
    from captured to handed over, seconds. reason: why frames fail at present. began_s, beat_s: when it began, and when
    the loop last came around. error: why it ended, where that was not by `stop`. is_showing: whether a frame may still
    come. left_behind: whether its thread hangs, and was given up.
    """

    def __init__(
        self,
        options: LiveOptions,
        source: LiveSource,
        pictures: Pictures,
        sinks: Sequence[Sink],
        clock: Clock,
        open_sink: Callable[[str], Sink],
        say: Callable[[str], None],
    ) -> None:
        self.options, self.source, self.pictures = options, source, pictures
        self.sinks = list(sinks)
        self.shown = self.failed = self.stale = self.held = self.covers = 0
        self.doubt = ""
        self.latency = Histogram()
        self.error: JokrError | None = None
        self.reason = ""
        self.paused = False
        self.beat_s = clock.now()
        self._clock, self._open_sink, self._say = clock, open_sink, say
        self._timeline = Timeline()
        self._sounds: deque[tuple[SoundPacket, int]] = deque()
        self._recording: Sink | None = None
        self._settings: dict[str, str] = {}
        self._last: Picture | None = None
        self._covered_s = -math.inf
        self._last_s = self.began_s = clock.now()
        self._commands: SimpleQueue[str] = SimpleQueue()
        self._finishing, self._finished = threading.Lock(), False
        self._stopping = self.left_behind = False
        self.is_showing = True
        self._actions = {
            "pause": self._toggle_pause,
            "next": self._next_target,
            "keypoints": self._toggle_keypoints,
            "learn": pictures.relearn,
            "snapshot": self._snapshot,
            "record": self._toggle_recording,
        }
        self.thread = threading.Thread(target=self.run, name=f"jokr-{options.name}", daemon=True)

    @property
    def name(self) -> str:
        return self.options.name

    @property
    def state(self) -> str:
        """ "paused", or the source's: "connecting", "live", "lost" or "ended"."""
        return "paused" if self.paused else self.source.state

    def stop(self) -> None:
        """Have it end after the present frame. From any thread."""
        self._stopping = True

    def fail(self, error: JokrError) -> None:
        """Stop it for this reason. From any thread."""
        self.error = self.error or error
        self.stop()

    def leave_behind(self, error: JokrError) -> None:
        """Go on without its thread, which hangs: finish the outputs in the caller's. From any other thread."""
        self.left_behind = True
        self.fail(error)
        self.finish(CLOSE_S)

    def do(self, action: str) -> None:
        """Have the stream's thread do one of `ACTIONS` between two frames. From any thread."""
        self._commands.put(action)

    def finish(self, seconds: float) -> None:
        """Close the sinks, each of them within so many seconds, and keep the first error. Once, from any thread."""
        with self._finishing:
            if self._finished:
                return
            self._finished = True
        for sink in self.sinks:
            try:
                sink.close(seconds)
            except JokrError as error:
                if self.error is not None:
                    self._say(f"{self.name}: {error}")
                self.error = self.error or error

    def run(self) -> None:
        try:
            while not self._stopping and self._turn():
                pass
        except JokrError as error:
            self.fail(error)
        except Exception as error:  # one stream's failure is its own, whatever it is
            self.fail(JokrError(f"{type(error).__name__}: {error}"))
        finally:
            self.is_showing = False
            self.source.close()
            self.finish(CLOSE_S)

    def _turn(self) -> bool:
        """One frame, or one look at why there is none; false at the source's end. Raises InputError, OutputError."""
        start = self.beat_s = self._clock.now()
        with suppress(Empty):
            while True:
                self._act(self._commands.get_nowait())
        if self.sinks and all(sink.state == "failed" for sink in self.sinks):
            raise OutputError(self.sinks[0].reason)
        try:
            captured = self.source.take(COVER_S)
        except JokrError as error:  # what was captured cannot be made a picture
            self._fail_frame(error)
            return True
        if captured is not None and self._clock.now() - captured.captured_s > self.options.stall:
            self.stale += 1  # it waited for an engine that hung: what is shown as live is not that old
        elif captured is not None:
            self._show(captured)
        elif self.source.state == "ended":
            if self.source.reason:
                raise InputError(self.source.reason)
            return False
        else:
            # A source that does not wait must not have the loop spin.
            sleep(self._clock, start + COVER_S - self._clock.now())
        self._cover()
        return True

    def _show(self, captured: Captured) -> None:
        frame = captured.frame
        if captured.connection != self._timeline.connection:
            self._connected(captured)
        time = self._timeline.place(frame, captured.captured_s, captured.connection, self.source.paced)
        try:
            image, found = self.pictures.draw(frame.rgb, captured.alpha, float(time))
        except Exception as error:
            self._fail_frame(error)
            return
        now = self._clock.now()
        if bool(self.doubt) != bool(self.pictures.doubt):
            self._say(f"{self.name} {self.pictures.doubt or 'shows the creature that the model knows again'}")
        self.doubt = self.pictures.doubt
        self.shown += 1
        self.held += not found
        self.latency.add(now - captured.captured_s)
        self._last, self._last_s, self.reason = image, now, ""
        self._pass_sound_on()
        self._put(Shown(image, captured.captured_s, time, live=found))

    def _connected(self, first: Captured) -> None:
        """Raises InputError where the source cannot be used as was asked for."""
        if self.options.mask == "alpha" and first.alpha is None:
            raise InputError(f"{self.name}: the source has no alpha channel; choose another --mask")
        for sink in self.sinks:
            sink.sound = self.source.sound
        if self.source.settings != self._settings:
            self._settings = self.source.settings
            self._say(f"{self.name}: " + ", ".join(f"{what} {value}" for what, value in self._settings.items()))

    def _fail_frame(self, error: Exception) -> None:
        """Count it, and say why, once for each reason in a row."""
        self.failed += 1
        defect = "" if isinstance(error, JokrError) else f"a defect, please report it: {type(error).__name__}: "
        reason = f"{defect}{error}"
        if reason != self.reason:
            self._say(f"{self.name}: {reason}")
        self.reason = reason

    def _cover(self) -> None:
        """Show that nothing is live, if so; not before there was a picture, as sinks open with its source's sound."""
        now = self._clock.now()
        since = now - max(self._covered_s, self._last_s)  # every picture has its time
        if self._last is None or since < 0.9 * COVER_S or (words := self._trouble(now)) is None:
            return
        on_loss = "freeze" if self.paused else self.options.on_loss
        if on_loss == "stop":
            raise InputError(f"{self.name}: no live picture: {self.source.reason or self.reason}")
        if on_loss == "passthrough":
            return
        self._covered_s = now
        size = self.pictures.width, self.pictures.height
        image = banner(self._last, words) if on_loss == "freeze" else slate(*size, *words.split(": "))
        self.covers += 1
        self._put(Shown(image, now, self._timeline.place_cover(now), live=False))

    def _trouble(self, now: float) -> str | None:
        """Why there is no picture, in words for everybody; None where there is no trouble yet."""
        since = now - self._last_s
        if self.paused:
            return "paused"
        if self.source.state == "lost":
            lost_for = now - (self.source.lost_since_s or now)
            return f"no signal: for {lost_for:.0f} s: reconnecting"
        if since < self.options.stall:
            return None
        return f"no picture: for {since:.0f} s"

    def _put(self, shown: Shown) -> None:
        for sink in self.sinks:
            sink.put(shown)

    def _pass_sound_on(self) -> None:
        """Hand over what was heard, before the picture that it is written with. Needs a picture of its connection."""
        self._sounds.extend(self.source.take_sounds())
        while self._sounds and self._sounds[0][1] <= self._timeline.connection:
            packet, connection = self._sounds.popleft()
            time = self._timeline.place_sound(packet.pts_s, connection)
            if time is not None and time >= 0:
                for sink in self.sinks:
                    sink.put_audio(packet, time)

    def _act(self, action: str) -> None:
        try:
            self._actions[action]()
        except JokrError as error:  # a full disk must not end the stream
            self._say(f"{self.name}: {error}")

    def _toggle_pause(self) -> None:
        self.paused = not self.paused
        (self.source.pause if self.paused else self.source.resume)()

    def _next_target(self) -> None:
        self.pictures.next_target()
        self.doubt = ""  # it is another creature that is looked for
        self._say(f"{self.name}: {self.pictures.target.name}")

    def _toggle_keypoints(self) -> None:
        self.pictures.keypoints_shown = not self.pictures.keypoints_shown

    def _snapshot(self) -> None:
        if self._last is not None:
            path = self._new_file(".png")
            write_png(path, self._last)
            self._say(f"{self.name}: {path}")

    def _toggle_recording(self) -> None:
        if self._recording is not None:
            self.sinks.remove(self._recording)
            recording, self._recording = self._recording, None
            recording.close(CLOSE_S)
            return
        path = self._new_file(".mp4")
        self._recording = self._open_sink(str(path))
        self._recording.sound = self.source.sound
        self.sinks.append(self._recording)
        self._say(f"{self.name}: recording {path}")

    def _new_file(self, suffix: str) -> Path:
        """In the working directory, named after the stream and the time of day."""
        return Path(f"{self.name}-{datetime.now():%Y%m%d-%H%M%S-%f}{suffix}")
