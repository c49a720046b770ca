"""Metrics for Prometheus, on a separate port that only this machine reaches."""
from __future__ import annotations

import importlib.util
import socket
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from streamdream.errors import MissingPackage, UsageError
from streamdream.system import memory
from streamdream.system.stats import peak_rss_mb, rss_mb

if TYPE_CHECKING:
    from ..core.state import AppState
    from ..live.waiting_room import WaitingRoom

ADDRESS = "127.0.0.1"


class Collector:
    """Reads the numbers at each request."""

    def __init__(self, app_state: AppState, waiting_room: WaitingRoom) -> None:
        self._app_state, self._waiting_room = app_state, waiting_room

    def collect(self) -> Iterator[Any]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        counts = self._waiting_room.totals()
        for name, text, value in (
                ("sessions", "live dreams that run", len(self._waiting_room.sessions)),
                ("waiting", "visitors in the queue for a live dream", len(self._waiting_room.queue)),
                ("turns_waiting", "dreams that wait for the device", self._app_state.waiting_for_device),
                ("rss_megabytes", "resident memory", rss_mb()),
                ("peak_rss_megabytes", "peak of the resident memory", peak_rss_mb()),
                ("prepared_megabytes", "memory of prepared steps and engines, see --memory",
                 memory.held_bytes() / 1e6)):
            yield GaugeMetricFamily(f"streamdream_{name}", text, value=value)
        for name, text in (("frames", "frames sent to live pages"), ("dreams", "live dreams computed"),
                           ("frame_seconds", "seconds that frames spent in the server"),
                           ("sessions", "live sessions started"),
                           ("resumed", "live sessions resumed after a lost connection")):
            yield CounterMetricFamily(f"streamdream_{name}", text, value=counts[name])
        refused = CounterMetricFamily("streamdream_refused", "requests and connections refused", labels=["reason"])
        for name, value in counts.items():
            if name.startswith(("refused ", "wrong ")):
                refused.add_metric([name.removeprefix("refused ")], value)
        yield refused


def check_port(port: int) -> None:
    """Raises MissingPackage, or UsageError when the port is taken."""
    if importlib.util.find_spec("prometheus_client") is None:
        raise MissingPackage("--metrics-port needs prometheus-client: pip install 'streamdream[metrics]'")
    try:
        with socket.create_server((ADDRESS, port)):
            pass
    except OSError as error:
        raise _port_error(port, error) from None


def _port_error(port: int, error: OSError) -> UsageError:
    return UsageError(f"cannot listen on --metrics-port {port}: {error.strerror}")


def serve(port: int, app_state: AppState, waiting_room: WaitingRoom) -> Callable[[], None]:
    """Serve the metrics until the returned function is called. Raises UsageError when the port is taken."""
    from prometheus_client import CollectorRegistry, start_http_server

    registry = CollectorRegistry()
    registry.register(Collector(app_state, waiting_room))
    try:
        server, thread = start_http_server(port, ADDRESS, registry)
    except OSError as error:
        raise _port_error(port, error) from None

    def end() -> None:
        server.shutdown()
        server.server_close()
        thread.join(5)

    return end
