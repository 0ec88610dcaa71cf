"""Figures of the server for Prometheus: requests, jobs, the process that runs models."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from neuronmap.web.explorer import Explorer

__all__ = ["Measured", "Measures"]

Message = MutableMapping[str, Any]


class Measures:
    """One server's figures, in a registry of their own.

    Args:
        explorer: the server's; None for one that has neither jobs nor models.
    """

    def __init__(self, explorer: Explorer | None = None) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "neuronmap_requests", "Requests.", ["method", "route", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "neuronmap_request_seconds",
            "Time until the answer was complete; streams of events are left out.",
            ["route"],
            registry=self.registry,
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30),
        )
        if explorer is not None:
            self.registry.register(_State(explorer))
        ProcessCollector(registry=self.registry)


class _State(Collector):
    """Jobs by state, and the live process, at the moment of asking."""

    def __init__(self, explorer: Explorer) -> None:
        self._explorer = explorer

    def collect(self) -> Iterator[GaugeMetricFamily]:
        jobs = GaugeMetricFamily("neuronmap_jobs", "Jobs by kind and state.", labels=["kind", "state"])
        for kind, states in self._explorer.jobs.counts().items():
            for state, count in states.items():
                jobs.add_metric([kind, state], count)
        yield jobs
        live = self._explorer.live.status()
        yield GaugeMetricFamily(
            "neuronmap_live_running", "Whether the process that runs models is up.", int(live["running"])
        )
        yield GaugeMetricFamily("neuronmap_live_waiting", "Requests that wait for it.", live["waiting"])
        yield GaugeMetricFamily("neuronmap_live_bytes", "Memory it held after its last answer.", live["memory"] or 0)


class Measured:
    """ASGI middleware: counts requests by route (never by address: there are too many) and their time.

    Args:
        app: what answers.
        measures: where it is counted.
    """

    def __init__(self, app: Any, measures: Measures) -> None:
        self.app, self.measures = app, measures

    async def __call__(
        self, scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
    ) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, status, streamed = time.perf_counter(), 500, False

        async def sender(message: Message) -> None:
            nonlocal status, streamed
            if message["type"] == "http.response.start":
                status = message["status"]
                streamed = any(
                    value.startswith(b"text/event-stream")
                    for name, value in message["headers"]
                    if name == b"content-type"
                )
            await send(message)

        try:
            await self.app(scope, receive, sender)
        finally:
            route = getattr(scope.get("route"), "path", "none")
            self.measures.requests.labels(scope["method"], route, str(status)).inc()
            if not streamed:
                self.measures.seconds.labels(route).observe(time.perf_counter() - started)
