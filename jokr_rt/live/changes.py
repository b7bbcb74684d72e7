"""Says what changes: a source that is lost and comes back, a sink that fails."""

from collections.abc import Callable

from jokr_rt.live.loop import Stream


class Changes:
    """Tells of one stream, whenever it is called, what is new since the last call; one line each."""

    def __init__(self, stream: Stream, say: Callable[[str], None]) -> None:
        self._stream, self._say = stream, say
        self._lost = False
        self._reasons = {"source": f"{stream.name}: {stream.source.reason}"}

    def tell(self) -> None:
        stream, source = self._stream, self._stream.source
        state, reason = source.state, source.reason
        if state == "live" and self._lost:
            self._say(f"{stream.name}: the source is back")
        elif state in ("connecting", "lost") and reason:
            self._tell_once("source", f"{stream.name}: {reason}")
        if state == "live":
            self._reasons.pop("source", None)
        self._lost = state == "lost"
        for sink in list(stream.sinks):
            if sink.reason:
                self._tell_once(sink.name, f"{stream.name}: {sink.reason}")

    def _tell_once(self, what: str, words: str) -> None:
        """Not again while it stays the same."""
        if self._reasons.get(what) != words:
            self._reasons[what] = words
            self._say(words)
