"""Metrics for Prometheus, on a separate port without login; by default only this machine reaches it."""
from __future__ import annotations

import importlib.util
import platform
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from streamdream import __version__
from streamdream.errors import MissingPackage, UsageError
from streamdream.system import memory
from streamdream.system.stats import peak_rss_mb, rss_mb

from ..core import histogram
from ..core.dream_health import READY

if TYPE_CHECKING:
    from ..core.state import AppState
    from ..jobs.service import JobService
    from ..live.waiting_room import WaitingRoom

LOOPBACK = "127.0.0.1"


class Collector:
    """Reads the numbers at each request."""

    def __init__(self, app_state: AppState, waiting_room: WaitingRoom, jobs_service: JobService | None = None) -> None:
        self._app_state, self._waiting_room, self._jobs_service = app_state, waiting_room, jobs_service

    def collect(self) -> Iterator[Any]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

        counts, max_sessions = self._waiting_room.totals(), self._app_state.web.max_sessions
        sessions = len(self._waiting_room.sessions)
        for name, text, value in (
                ("sessions", "live dreams that run", sessions),
                ("max_sessions", "live dreams that may run at once", max_sessions),
                ("sessions_share", "live dreams that run, of those that may", sessions / max_sessions),
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
                           ("resumed", "live sessions resumed after a lost connection"),
                           ("passed on", "visitors who were passed on to a replica with room, or with their dream")):
            yield CounterMetricFamily(f"streamdream_{name.replace(' ', '_')}", text, value=counts[name])
        yield CounterMetricFamily("streamdream_device_seconds", "time for which the device was in use",
                                  value=self._app_state.device_seconds)
        refused = CounterMetricFamily("streamdream_refused", "requests and connections refused", labels=["reason"])
        for name, value in counts.items():
            if name.startswith(("refused ", "wrong ")):
                refused.add_metric([name.removeprefix("refused ")], value)
        yield refused
        yield from _families_of_jobs(counts, self._jobs_service)
        yield HistogramMetricFamily(
            "streamdream_frame_latency_seconds", "time of a live frame in the server",
            buckets=histogram.cumulative("frame_latency", counts, histogram.FRAME_BOUNDS),
            sum_value=counts["frame_seconds"])
        yield GaugeMetricFamily("streamdream_ready", "1 if /readyz answers 200",
                                value=self._app_state.readiness == READY)
        yield GaugeMetricFamily("streamdream_draining", "1 while the server takes no new visitors, before it stops",
                                value=self._app_state.draining)
        stream = self._app_state.stream
        build = GaugeMetricFamily("streamdream_build_info", "always 1; what runs",
                                  labels=["version", "python", "model"])
        build.add_metric([__version__, platform.python_version(), stream.model], 1)
        yield build


def _families_of_jobs(counts: Counter[str], jobs_service: JobService | None) -> Iterator[Any]:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

    uploads = CounterMetricFamily("streamdream_uploads", "files that were sent", labels=["outcome"])
    for outcome in ("accepted", "refused"):
        uploads.add_metric([outcome], counts[f"uploads {outcome}"])
    yield uploads
    yield CounterMetricFamily("streamdream_upload_bytes", "size of accepted files", value=counts["upload bytes"])
    now = GaugeMetricFamily("streamdream_jobs_now", "jobs that wait or run", labels=["queue", "state"])
    ended = CounterMetricFamily("streamdream_jobs", "jobs that have ended", labels=["queue", "state"])
    took = HistogramMetricFamily("streamdream_job_seconds", "time for which jobs ran", labels=["queue"])
    for queue in (jobs_service.videos, jobs_service.stills) if jobs_service else ():
        lengths = queue.lengths
        for state in ("waiting", "running"):
            now.add_metric([queue.name, state], lengths[state])
        for state in ("done", "failed", "cancelled"):
            ended.add_metric([queue.name, state], counts[f"jobs {queue.name} {state}"])
        took.add_metric([queue.name], histogram.cumulative(f"job {queue.name}", counts, histogram.JOB_BOUNDS),
                        counts[f"job {queue.name} ms"] / 1e3)
    yield from (now, ended, took)


def check_port(port: int, host: str = LOOPBACK) -> None:
    """Raises MissingPackage, or UsageError when the port is taken or the host is none of this machine."""
    if importlib.util.find_spec("prometheus_client") is None:
        raise MissingPackage("--metrics-port needs prometheus-client: pip install 'streamdream[metrics]'")
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.create_server(address, family=family):
            pass
    except OSError as error:
        raise _port_error(host, port, error) from None


def _port_error(host: str, port: int, error: OSError) -> UsageError:
    shown = "" if host == LOOPBACK else f" of --metrics-host {host}"
    return UsageError(f"cannot listen on --metrics-port {port}{shown}: {error.strerror}")


def serve(port: int, app_state: AppState, waiting_room: WaitingRoom, jobs_service: JobService, host: str = LOOPBACK
          ) -> Callable[[], None]:
    """Serve the metrics until the returned function is called. Raises UsageError when the port is taken."""
    from prometheus_client import CollectorRegistry, start_http_server

    registry = CollectorRegistry()
    registry.register(Collector(app_state, waiting_room, jobs_service))
    try:
        server, thread = start_http_server(port, host, registry)
    except OSError as error:
        raise _port_error(host, port, error) from None

    def end() -> None:
        server.shutdown()
        server.server_close()
        thread.join(5)

    return end
