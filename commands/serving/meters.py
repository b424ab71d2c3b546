"""Counts and times of a server, in the text format of Prometheus."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.requests import Request


@dataclass(slots=True, kw_only=True)
class Seen:
    """Outcome of a request: its status, 500 until there is an answer."""

    status: int = 500


class Meters:
    """The metrics of one server."""

    media_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter("captioners_requests", "requests", ["path", "status"], registry=self._registry)
        self._seconds = Histogram("captioners_request_seconds", "time to answer", ["path"], registry=self._registry)
        sizes = (1, 2, 4, 8, 16, 32, 64)
        self._batches = Histogram(
            "captioners_batch_size", "requests of a batch", buckets=sizes, registry=self._registry
        )
        self._waiting = Gauge("captioners_waiting", "requests that wait for a batch", registry=self._registry)

    def batch(self, size: int) -> None:
        """Counts a batch."""
        self._batches.observe(size)

    def watch_queue(self, waiting: Callable[[], int]) -> None:
        """Lets the gauge ask how many requests wait."""
        self._waiting.set_function(waiting)

    @contextmanager
    def request(self, request: Request) -> Iterator[Seen]:
        """Times a request; paths that do not exist count as one, or anybody could fill the memory with names."""
        begun, seen = time.perf_counter(), Seen()
        try:
            yield seen
        finally:
            route = request.scope.get("route")
            path = getattr(route, "path", "other")
            self._requests.labels(path, seen.status).inc()
            self._seconds.labels(path).observe(time.perf_counter() - begun)

    def text(self) -> bytes:
        """All metrics."""
        return generate_latest(self._registry)
