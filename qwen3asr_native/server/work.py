"""Recognition for an event loop: jobs that run in worker threads, a bounded queue before them.

The way of a request: ``Desk.begin`` (or 429) -> waits for a free worker -> ``model.stream`` in that thread -> tokens, finished
segments and the transcript through a queue to the event loop. ``Job.abort`` ends it within one decode step, wherever it is.
"""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Union

import anyio
import anyio.to_thread

from ..errors import Qwen3AsrError
from ..transcript import Segment, Token, Transcript
from . import errors
from .errors import ApiError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from ..stream import Stream

    Item = Union[Token, Segment, Transcript]

_GUESS_SECONDS = 2.0
_LONGEST_RETRY = 60


class Gone(Exception):
    """The client has left; nobody reads an answer."""


class Job:
    """One recognition, from the queue to its transcript. Made by ``Desk.begin``; event loop only.

    Attributes:
        queued_seconds: How long it waited for a worker; None while it waits.
        first_seconds: From the end of the upload to the first token that has text; None before.
        seconds: From the end of the upload to the end; None before.
    """

    def __init__(
        self,
        begin: Callable[[], Stream],
        detailed: bool,
        release: Callable[[], None],
        time_limit: float,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._begin, self._detailed, self._release = begin, detailed, release
        self._items: asyncio.Queue[Item | Exception] = asyncio.Queue()
        self._lock = threading.Lock()
        self._stream: Stream | None = None
        self._why: ApiError | Gone | None = None
        self._scope = anyio.CancelScope()
        self._created = time.monotonic()
        self._time_limit = time_limit
        self._timer = self._loop.call_later(time_limit, self._late)
        self.queued_seconds: float | None = None
        self.first_seconds: float | None = None
        self.seconds: float | None = None

    async def next(self) -> Item:
        """The next token or finished segment of a detailed job; at the end the transcript.

        Raises:
            ApiError: The recognition failed or took too long.
            Gone: It was aborted.
        """
        item = await self._items.get()
        if isinstance(item, Exception):
            raise item
        return item

    def abort(self, why: ApiError | Gone | None = None) -> None:
        """Ends the job within one decode step; ``next`` then raises ``why``. Harmless at the end."""
        with self._lock:
            self._why = self._why or why or Gone()
            stream = self._stream
        self._scope.cancel()  # while it waits for a worker
        if stream is not None:
            stream.abort()

    async def run(self, workers: anyio.CapacityLimiter) -> None:
        """Does the work; every outcome goes to ``next``."""
        result: Item | Exception = Gone()
        try:
            with self._scope:
                result = await anyio.to_thread.run_sync(self._work, limiter=workers)
        except Qwen3AsrError as error:
            result = errors.of_library(error)
        except Exception as error:
            result = error
        finally:
            self._timer.cancel()
            self._release()
            self.seconds = time.monotonic() - self._created
            self._items.put_nowait(self._why or result)

    def _late(self) -> None:
        message = f"the recognition took longer than the {self._time_limit:g} s that a request may take; send shorter audio"
        # Trying the same again would take as long again.
        self.abort(ApiError(504, message, "time_limit_exceeded", headers={"x-should-retry": "false"}))

    def _work(self) -> Transcript:
        """In the worker's thread."""
        self.queued_seconds = time.monotonic() - self._created
        stream = self._begin()
        with self._lock:
            self._stream = stream
            aborted = self._why is not None
        if aborted:
            stream.abort()
        with stream:
            for item in self._items_of(stream) if self._detailed else stream.segments():
                if not isinstance(item, Segment) and self.first_seconds is None and item.text:
                    self.first_seconds = time.monotonic() - self._created
                if self._detailed:
                    self._loop.call_soon_threadsafe(self._items.put_nowait, item)
            transcript = stream.finish()
        if self.first_seconds is None:
            self._note_first(transcript)
        return transcript

    @staticmethod
    def _items_of(stream: Stream) -> Iterator[Token | Segment]:
        """Tokens, and each segment after its last."""
        told = 0
        for token in stream:
            yield token
            for segment in stream.finished[told:]:
                yield segment
                told += 1
        yield from stream.finished[told:]

    def _note_first(self, transcript: Transcript) -> None:
        for token in transcript.tokens:
            if token.text:
                self.first_seconds = token.time_ns / 1e9 - self._created
                return


class Desk:
    """Where requests queue for the workers. One for each server; event loop only."""

    def __init__(self, active: int, queue: int, time_limit: float) -> None:
        self._active, self._queue, self._time_limit = active, queue, time_limit
        self._workers = anyio.CapacityLimiter(active)
        self._jobs: set[Job] = set()
        self._tasks: anyio.abc.TaskGroup | None = None
        self._usual = _GUESS_SECONDS

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Jobs can run inside; at the end those that still run are aborted, and waited for."""
        async with anyio.create_task_group() as self._tasks:
            try:
                yield
            finally:
                for job in list(self._jobs):
                    job.abort(ApiError(503, "the server is shutting down; ask again later", "unavailable"))

    @property
    def running(self) -> int:
        """Jobs that have a worker."""
        return min(len(self._jobs), self._active)

    @property
    def waiting(self) -> int:
        """Jobs that wait for one."""
        return len(self._jobs) - self.running

    def check(self) -> None:
        """Raises ApiError, 429 with Retry-After, when no further job would be taken."""
        if len(self._jobs) < self._active + self._queue:
            return
        wait = self._usual * (self.waiting + 1) / self._active
        seconds = max(1, min(_LONGEST_RETRY, round(wait)))
        message = (
            f"the server is busy: {self.running} requests are computed and {self.waiting} wait; "
            f"ask again in {seconds} s"
        )
        raise ApiError(429, message, "rate_limit_exceeded", headers={"Retry-After": str(seconds)})

    def begin(
        self,
        begin: Callable[[], Stream],
        *,
        detailed: bool = False,
        release: Callable[[], None] = lambda: None,
    ) -> Job:
        """Queues a recognition.

        Args:
            begin: Begins the stream; called in a worker's thread.
            detailed: Whether tokens and segments are wanted as they come, not only the transcript.
            release: Called when the audio is no longer needed.

        Raises:
            ApiError: The queue is full.
        """
        self.check()
        assert self._tasks is not None
        job = Job(begin, detailed, release, self._time_limit)
        self._jobs.add(job)
        self._tasks.start_soon(self._run, job)
        return job

    async def _run(self, job: Job) -> None:
        try:
            await job.run(self._workers)
        finally:
            self._jobs.discard(job)
            if job.seconds is not None and job.queued_seconds is not None:
                self._usual += 0.1 * (job.seconds - job.queued_seconds - self._usual)
