"""What the server tells Prometheus, on a port of its own that only this machine reaches."""
from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from streamdream.errors import MissingPackage, UsageError
from streamdream.system import memory
from streamdream.system.stats import peak_rss_mb, rss_mb

if TYPE_CHECKING:
    from ..core.state import Studio
    from ..live.waiting_room import Hall

ADDRESS = "127.0.0.1"


class Collector:
    """Reads the numbers when it is asked, so that nothing is counted twice."""

    def __init__(self, studio: Studio, hall: Hall) -> None:
        self._studio, self._hall = studio, hall

    def collect(self) -> Iterator[Any]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        counts = self._hall.totals()
        for name, text, value in (
                ("sessions", "live dreams now", len(self._hall.sessions)),
                ("waiting", "visitors in line", len(self._hall.line)),
                ("turns_waiting", "dreams that wait for the device", self._studio.turns_waiting),
                ("rss_megabytes", "memory held now", rss_mb()),
                ("peak_rss_megabytes", "the most memory held so far", peak_rss_mb()),
                ("prepared_megabytes", "memory of prepared steps and engines, see --memory",
                 memory.held_bytes() / 1e6)):
            yield GaugeMetricFamily(f"streamdream_{name}", text, value=value)
        for name, text in (("frames", "pictures dreamed and sent"), ("dreams", "dreams renewed"),
                           ("frame_seconds", "time that pictures spent here"), ("sessions", "live dreams begun"),
                           ("resumed", "live dreams taken up again")):
            yield CounterMetricFamily(f"streamdream_{name}", text, value=counts[name])
        refused = CounterMetricFamily("streamdream_refused", "requests and connections refused", labels=["reason"])
        for name, value in counts.items():
            if name.startswith(("refused ", "wrong ")):
                refused.add_metric([name.removeprefix("refused ")], value)
        yield refused


def serve(port: int, studio: Studio, hall: Hall) -> Callable[[], None]:
    """Begins to answer; what is returned ends it. Raises MissingPackage, or UsageError when the port is taken."""
    try:
        from prometheus_client import CollectorRegistry, start_http_server
    except ImportError:
        raise MissingPackage("--metrics-port needs prometheus-client: pip install 'streamdream[metrics]'") from None
    registry = CollectorRegistry()
    registry.register(Collector(studio, hall))
    try:
        server, thread = start_http_server(port, ADDRESS, registry)
    except OSError as error:
        raise UsageError(f"--metrics-port {port}: {error.strerror}") from None

    def end() -> None:
        server.shutdown()
        server.server_close()
        thread.join(5)

    return end
