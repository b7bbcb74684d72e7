"""The figures for Prometheus, on this machine only."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from jokr_rt.errors import EngineMissingError, OutputError
from jokr_rt.live.figures import StreamFigures

_COUNTERS = {
    "captured": "frames that the source delivered",
    "shown": "frames that were shown",
    "dropped": "frames that were older than a newer one",
    "failed": "frames that could not be drawn",
    "duplicates": "pictures that show no new frame",
    "reconnects": "times that the source came back",
}
_SINK_COUNTERS = {
    "shown": "pictures written",
    "dropped": "pictures not written",
    "failures": "failures to open or write",
    "retries": "openings after a failure",
}
_STATES = ("connecting", "live", "lost", "paused", "ended")


@contextmanager
def serve_metrics(port: int, read: Callable[[], Sequence[StreamFigures]]) -> Iterator[str]:
    """Serve what `read` returns, figures since the start, on 127.0.0.1; yields the URL. port: 0 for any free one.

    Raises EngineMissingError without the package prometheus-client, OutputError for a port that is taken.
    """
    try:
        from prometheus_client import CollectorRegistry, start_http_server
    except ImportError:
        raise EngineMissingError("Prometheus figures need a package: pip install 'jokr-rt[live]'") from None
    registry = CollectorRegistry()
    registry.register(_Collector(read))
    try:
        server, thread = start_http_server(port, addr="127.0.0.1", registry=registry)
    except OSError as error:
        raise OutputError(f"Prometheus on port {port}: {error.strerror}; choose another port") from None
    try:
        yield f"http://127.0.0.1:{server.server_port}/metrics"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Collector:
    def __init__(self, read: Callable[[], Sequence[StreamFigures]]) -> None:
        self._read = read

    def describe(self) -> Iterable[Any]:
        return []  # so that registering it does not read

    def collect(self) -> Iterator[Any]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        streams = self._read()
        for name, text in _COUNTERS.items():
            family = CounterMetricFamily(f"jokr_{name}", text, labels=["stream"])
            for stream in streams:
                family.add_metric([stream.stream], getattr(stream, name))
            yield family
        state = GaugeMetricFamily("jokr_state", "1 for the state that the stream is in", labels=["stream", "state"])
        latency = GaugeMetricFamily(
            "jokr_latency_seconds", "from capture, since the start", labels=["stream", "sink", "quantile"]
        )
        depth = GaugeMetricFamily("jokr_sink_queue_depth", "pictures that wait", labels=["stream", "sink"])
        counters = {
            name: CounterMetricFamily(f"jokr_sink_{name}", text, labels=["stream", "sink"])
            for name, text in _SINK_COUNTERS.items()
        }
        for stream in streams:
            for each in _STATES:
                state.add_metric([stream.stream, each], float(each == stream.state))
            for quantile, seconds in _quantiles(stream.latency_ms):
                latency.add_metric([stream.stream, "", quantile], seconds)
            for sink in stream.sinks:
                labels = [stream.stream, sink.name]
                depth.add_metric(labels, sink.queue_depth)
                for name, family in counters.items():
                    family.add_metric(labels, getattr(sink, name))
                for quantile, seconds in _quantiles(sink.latency_ms):
                    latency.add_metric([*labels, quantile], seconds)
        yield from (state, latency, depth, *counters.values())


def _quantiles(latency_ms: dict[str, float] | None) -> Iterator[tuple[str, float]]:
    for percentile, milliseconds in (latency_ms or {}).items():
        yield f"0.{percentile.removeprefix('p')}", milliseconds / 1e3
