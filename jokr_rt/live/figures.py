"""What a live stream tells of itself: the same figures as JSON, on the status line and for Prometheus."""

from dataclasses import asdict, dataclass
from typing import Any
from weakref import WeakKeyDictionary

from jokr_rt.live.loop import Stream
from jokr_rt.live.sink import Sink
from jokr_rt.timing import Histogram


@dataclass(frozen=True)
class SinkFigures:
    """See `jokr_rt.live.sink.Sink`. latency_ms: from capture to written, of live pictures since the figures before."""

    name: str
    state: str
    shown: int
    dropped: int
    failures: int
    retries: int
    queue_depth: int
    latency_ms: dict[str, float] | None


@dataclass(frozen=True)
class StreamFigures:
    """Counts since the start; rates over the time since the figures before.

    captured = shown + dropped + failed, but for one frame that waits and one under way. dropped: older than a newer
    one that waited, or than `LiveOptions.stall`. failed: could not be drawn, for `reason`. duplicates: pictures that
    show no new frame, because the source was lost or paused (`covers`), or the creature not found (`held`). latency_ms:
    from capture to handed to the sinks, of the frames since the figures before; None without. stages_ms: what of that
    "prepare", "extract", "draw" and "compose" took. doubt: see `jokr_rt.familiar.Familiarity`.
    """

    stream: str
    state: str
    target: str
    uptime_s: float
    capture_fps: float
    output_fps: float
    captured: int
    shown: int
    dropped: int
    failed: int
    duplicates: int
    held: int
    covers: int
    reconnects: int
    reason: str
    doubt: str
    latency_ms: dict[str, float] | None
    stages_ms: dict[str, dict[str, float] | None]
    sinks: tuple[SinkFigures, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class Meter:
    """Reads one stream's figures, now and again; rates and percentiles are of the time between two readings."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._last_s = stream.began_s
        self._captured = self._put = 0
        self._seen: WeakKeyDictionary[Histogram, Histogram] = WeakKeyDictionary()

    def read(self, now: float) -> StreamFigures:
        stream, source, elapsed = self._stream, self._stream.source, max(now - self._last_s, 1e-3)
        captured, put = source.captured, stream.shown + stream.covers
        rates = (captured - self._captured) / elapsed, (put - self._put) / elapsed
        self._last_s, self._captured, self._put = now, captured, put
        return StreamFigures(
            stream=stream.name,
            state=stream.state,
            target=stream.pictures.target.name,
            uptime_s=round(now - stream.began_s, 3),
            capture_fps=round(rates[0], 2),
            output_fps=round(rates[1], 2),
            captured=captured,
            shown=stream.shown,
            dropped=source.dropped + stream.stale,
            failed=stream.failed,
            duplicates=stream.held + stream.covers,
            held=stream.held,
            covers=stream.covers,
            reconnects=source.reconnects,
            reason=stream.reason or source.reason,
            doubt=stream.doubt,
            latency_ms=self._percentiles(stream.latency),
            stages_ms={stage: self._percentiles(each) for stage, each in stream.pictures.stages.items()},
            sinks=tuple(map(self._sink, list(stream.sinks))),
        )

    def _sink(self, sink: Sink) -> SinkFigures:
        return SinkFigures(
            name=sink.name,
            state=sink.state,
            shown=sink.shown,
            dropped=sink.dropped,
            failures=sink.failures,
            retries=sink.retries,
            queue_depth=sink.queue_depth,
            latency_ms=self._percentiles(sink.latency),
        )

    def _percentiles(self, histogram: Histogram) -> dict[str, float] | None:
        """Of what was added since the reading before; None where nothing was."""
        now = histogram.copy()
        new = now.since(self._seen.get(histogram, Histogram()))
        self._seen[histogram] = now
        return None if new.is_empty else new.milliseconds()


def summary(figures: StreamFigures) -> str:
    """One line for people."""
    latency = figures.latency_ms
    parts = [
        f"{figures.stream}: {figures.state}",
        f"in {figures.capture_fps:.1f} fps, out {figures.output_fps:.1f}",
        f"latency p50 {latency['p50']:.0f} p95 {latency['p95']:.0f} ms" if latency else "no frames",
        f"{figures.dropped + figures.failed} dropped",
        f"{figures.reconnects} reconnects",
    ]
    parts += [f"{sink.name} {sink.state}" for sink in figures.sinks if sink.state in ("retrying", "failed", "broken")]
    return ", ".join(parts + [figures.reason] * bool(figures.reason))
