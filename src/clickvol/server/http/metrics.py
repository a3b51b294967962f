"""What Prometheus may read: how many requests, how long they took, what sessions hold. Labels name nobody."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from starlette.datastructures import Headers
from starlette.types import Scope

from clickvol.server.sessions import Sessions

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

# From a heartbeat to a first click in a large scan on a slow machine. Chosen.
_BUCKETS_SECONDS = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)

_KINDS = {
    "viewer": "viewer",
    "worklist": "viewer",
    "MONAI Label": "monai_label",
    "nnInteractive": "nninteractive",
    "SlicerNNInteractive": "slicer_nninteractive",
    "ITK-SNAP": "itk_snap",
}


def kind_of_client(scope: Scope, headers: Headers) -> str:
    """Return whose protocol a request speaks; of our own, "viewer" where a browser sent it, else "api"."""
    tags = getattr(scope.get("route"), "tags", [])
    return _KINDS.get(tags[0] if tags else "", "viewer" if "sec-fetch-site" in headers else "api")


class Metrics:
    """The metrics of one server; `failed_tokens` counts wrong tokens."""

    def __init__(self, sessions: Sessions) -> None:
        self._registry = CollectorRegistry()
        labels = ("client", "method", "route", "status")
        self._requests = Counter("clickvol_requests", "Answered requests.", labels, registry=self._registry)
        self._seconds = Histogram(
            "clickvol_request_seconds",
            "From a request's headers to the end of its answer.",
            ("client", "route"),
            buckets=_BUCKETS_SECONDS,
            registry=self._registry,
        )
        self.failed_tokens = Counter("clickvol_failed_tokens", "Wrong tokens.", registry=self._registry)
        ProcessCollector(registry=self._registry)
        self._registry.register(_Holdings(sessions))

    def count(self, client: str, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request."""
        self._requests.labels(client, method, route, status).inc()
        self._seconds.labels(client, route).observe(seconds)

    def text(self) -> bytes:
        """Return all of it as Prometheus reads it."""
        return generate_latest(self._registry)


class _Holdings(Collector):
    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    def collect(self) -> Iterator[GaugeMetricFamily]:
        sessions = self._sessions
        num_live = sessions.num_in_memory
        for name, words, value in (
            ("sessions", "Sessions whose lease is not over.", sessions.num_sessions),
            ("sessions_in_memory", "Of them, those that answer at once.", num_live),
            ("sessions_parked", "Of them, those that wait on disk.", sessions.num_sessions - num_live),
            ("queue", "Requests that wait for the model.", sessions.num_waiting),
            ("session_memory_bytes", "Scans, features and history in memory.", sessions.num_bytes),
            ("session_memory_limit_bytes", "What of them may be in memory.", sessions.settings.memory_bytes),
        ):
            yield GaugeMetricFamily(f"clickvol_{name}", words, value)
