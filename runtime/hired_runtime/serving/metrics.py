"""What Prometheus may read: how many requests, how long, how many tokens, and how full the engine is.

Each server has a registry of its own, so that two in one process do not add up.
"""

from __future__ import annotations

import time

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hired_runtime.request import Answer
from hired_runtime.serving.chat_answer import visual_tokens
from hired_runtime.serving.engine import Engine

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250)
_PATHS = ("/v1/chat/completions", "/v1/models", "/health", "/ready", "/metrics", "/")
"""Those that are counted by name; all others are one, or strangers could make as many series as they like."""


class Metrics:
    """The numbers of one engine's server."""

    def __init__(self, engine: Engine) -> None:
        self._registry = registry = CollectorRegistry()

        def counter(name: str, text: str, labels: tuple[str, ...] = ()) -> Counter:
            return Counter(f"hired_edge_{name}", text, labels, registry=registry)

        def histogram(name: str, text: str) -> Histogram:
            return Histogram(f"hired_edge_{name}", text, buckets=_SECONDS, registry=registry)

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(f"hired_edge_{name}", text, registry=registry)

        self._requests = counter("requests", "Requests by path and HTTP status.", ("path", "status"))
        self._refused = counter("refused", "Requests that were answered with an error, by its code.", ("reason",))
        self._gone = counter("disconnected", "Clients that left before their answer was complete.")
        self._prompt = counter("prompt_tokens", "Text positions of answered prompts.")
        self._visual = counter("visual_tokens", "Visual positions of answered prompts: kept tokens and newlines.")
        self._cached = counter("cached_tokens", "Positions of answered prompts that were in the cache already.")
        self._completion = counter("completion_tokens", "Tokens generated in complete answers.")
        self._first = histogram("time_to_first_token_seconds", "From a request's headers to its first text.")
        self._total = histogram("request_seconds", "From a request's headers to its answer's end.")
        gauge("requests_running", "Requests that are being answered.").set_function(lambda: engine.running)
        gauge("requests_waiting", "Requests in the queue.").set_function(lambda: engine.waiting)
        gauge("cache_bytes", "Size of the key-value cache.").set(engine.model.cache_bytes)

    async def answer(self, request: Request) -> Response:
        """GET /metrics."""
        return Response(generate_latest(self._registry), media_type=CONTENT_TYPE_LATEST)

    def watch(self) -> Watch:
        """Of one request, from now on."""
        return Watch(self)

    def gone(self) -> None:
        self._gone.inc()

    def refused(self, reason: str | None) -> None:
        self._refused.labels(reason or "other").inc()

    def counted(self, path: str, status: int) -> None:
        self._requests.labels(path if path in _PATHS else "other", str(status)).inc()

    def refused_unheard(self, path: str, status: int, reason: str | None) -> None:
        """Of a request that the application has not answered: its connection has."""
        self.refused(reason)
        self.counted(path, status)

    def answered(self, answer: Answer, first_s: float, total_s: float) -> None:
        self._prompt.inc(answer.prompt_tokens)
        self._visual.inc(visual_tokens(answer))
        self._cached.inc(answer.cached_tokens)
        self._completion.inc(len(answer.tokens))
        self._first.observe(first_s)
        self._total.observe(total_s)


class Watch:
    """A stopwatch of one request: times as its client sees them, waiting included."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics, self._begin, self._first = metrics, time.perf_counter(), None

    def piece(self) -> None:
        """A piece of text has come."""
        if self._first is None:
            self._first = time.perf_counter() - self._begin

    def end(self, answer: Answer) -> None:
        """The answer is complete."""
        total = time.perf_counter() - self._begin
        self._metrics.answered(answer, total if self._first is None else self._first, total)


class Counting:
    """Middleware: counts every answer by its path and status."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def count(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._metrics.counted(scope["path"], message["status"])
            await send(message)

        await self._app(scope, receive, count if scope["type"] == "http" else send)
