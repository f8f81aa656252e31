"""What Prometheus reads at /metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

if TYPE_CHECKING:
    from .work import Desk, Job

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)

CONTENT_TYPE = CONTENT_TYPE_LATEST


class Metrics:
    """The numbers of one server."""

    def __init__(self, desk: Desk) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._requests = Counter(
            "qwen3asr_requests", "Requests by path and status.", ["path", "status"], registry=self._registry
        )
        self._request_seconds = Histogram(
            "qwen3asr_request_seconds",
            "From the first byte of a request to the end of its answer.",
            ["path"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._queue_seconds = Histogram(
            "qwen3asr_queue_seconds", "Waiting for a worker.", buckets=_SECONDS, registry=self._registry
        )
        self._first_seconds = Histogram(
            "qwen3asr_first_token_seconds",
            "From the end of the upload to the first token with text.",
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._audio = Counter(
            "qwen3asr_audio_seconds", "Audio recognized to its end.", registry=self._registry
        )
        self._tokens = Counter("qwen3asr_tokens", "Tokens of those texts.", registry=self._registry)
        for name, text, value in (
            ("qwen3asr_running", "Recognitions that have a worker.", lambda: desk.running),
            ("qwen3asr_waiting", "Recognitions that wait for one.", lambda: desk.waiting),
        ):
            Gauge(name, text, registry=self._registry).set_function(value)
        self.sessions = Gauge("qwen3asr_sessions", "Open WebSockets.", registry=self._registry)

    def request(self, path: str, status: int, seconds: float) -> None:
        """A request has ended."""
        self._requests.labels(path, str(status)).inc()
        self._request_seconds.labels(path).observe(seconds)

    def recognized(self, job: Job, audio_seconds: float, tokens: int) -> None:
        """A recognition has ended well."""
        self._audio.inc(audio_seconds)
        self._tokens.inc(tokens)
        if job.queued_seconds is not None:
            self._queue_seconds.observe(job.queued_seconds)
        if job.first_seconds is not None:
            self._first_seconds.observe(job.first_seconds)

    def render(self) -> bytes:
        """The text that Prometheus reads."""
        text: bytes = generate_latest(self._registry)
        return text
