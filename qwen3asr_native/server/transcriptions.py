"""POST /v1/audio/transcriptions."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from starlette.responses import JSONResponse, Response, StreamingResponse

from ..assembly import separator
from ..transcript import Segment, Transcript
from . import answers, form
from .errors import ApiError
from .length import check_length
from .work import Gone

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from starlette.requests import Request
    from starlette.types import Receive, Scope, Send

    from ..aligner import Aligner
    from ..model import Model
    from ..stream import Stream
    from .metrics import Metrics
    from .settings import Settings
    from .work import Desk, Item, Job

#: Names the fields of a request that changed nothing.
IGNORED_HEADER = "x-ignored-fields"
_TOLERANCE = 1.0


class Transcriptions:
    """The endpoint."""

    def __init__(
        self,
        model: Model,
        aligner: Aligner | None,
        names: list[str],
        settings: Settings,
        desk: Desk,
        metrics: Metrics,
    ) -> None:
        self._model, self._aligner, self._names = model, aligner, names
        self._settings, self._desk, self._metrics = settings, desk, metrics

    async def answer(self, request: Request) -> Response:
        """Answers one request. Raises ApiError and Gone."""
        self._desk.check()  # better before the upload than after it
        data = await form.read_form(request, self._settings)
        record: dict[str, Any] = request.scope["state"]["record"]
        try:
            wish = form.parse(data, self._names)
            work = _Work(self._model, self._aligner, wish, self._settings, self._metrics, record)
            if wish.words and self._aligner is None:
                message = "this server was started without an aligner, which tells the times of words; ask for those of segments"
                raise ApiError(400, message, "unsupported_value", "timestamp_granularities")
            job = self._desk.begin(work.begin, detailed=wish.stream, release=wish.file.release)
        except BaseException:
            await data.close()
            raise
        with _aborted_at_the_end(job), _aborted_when_gone(request, job):
            first = await job.next()
        return work.events(job, first) if wish.stream else work.answer(job, first)


@contextmanager
def _aborted_when_gone(request: Request, job: Job) -> Iterator[None]:
    """Aborts a job when the client leaves while the block runs."""

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        job.abort(Gone())

    watcher = asyncio.ensure_future(watch())
    try:
        yield
    finally:
        watcher.cancel()


@contextmanager
def _aborted_at_the_end(job: Job) -> Iterator[None]:
    """A job whose reader fails is of no use."""
    try:
        yield
    except BaseException:
        job.abort()
        raise


class _Work:
    """One request after its upload."""

    def __init__(
        self,
        model: Model,
        aligner: Aligner | None,
        wish: form.Wish,
        settings: Settings,
        metrics: Metrics,
        record: dict[str, Any],
    ) -> None:
        self._model, self._aligner, self._wish, self._settings = model, aligner, wish, settings
        self._metrics, self._record = metrics, record
        self._seconds: float | None = None
        self._sent = ""
        self._segments = 0
        record.update(bytes=wish.file.size, format=wish.form, stream=wish.stream)

    def begin(self) -> Stream:
        """In a worker's thread."""
        wish = self._wish
        self._seconds = check_length(wish.file, self._settings.max_audio_seconds)
        options: dict[str, Any] = {
            "context": wish.context,
            "script": wish.script,
            "itn": wish.itn,
            "max_new_tokens": self._settings.max_new_tokens,
            # For audio whose length nobody knew; headers round.
            "max_audio_seconds": self._settings.max_audio_seconds + _TOLERANCE,
        }
        if wish.words:
            options.update(words=True, aligner=self._aligner)
        return self._model.stream(cast("BinaryIO", wish.file), wish.language, **options)

    def answer(self, job: Job, item: Item) -> Response:
        """The whole answer at once."""
        assert isinstance(item, Transcript)
        self._note(job, item)
        wish = self._wish
        headers = self._headers()
        if wish.form in ("json", "verbose_json"):
            return JSONResponse(answers.json_form(item, wish, self._length(item)), headers=headers)
        return Response(
            answers.text_form(item, wish.form), media_type=answers.MEDIA_TYPES[wish.form], headers=headers
        )

    def events(self, job: Job, first: Item) -> Response:
        """The answer as it comes."""
        headers = {**self._headers(), "cache-control": "no-store", "x-accel-buffering": "no"}
        response = StreamingResponse(
            self._events(job, first), media_type="text/event-stream", headers=headers
        )

        async def answer(scope: Scope, receive: Receive, send: Send) -> None:
            try:
                await response(scope, receive, send)  # ends when the client leaves
            finally:
                job.abort()

        return cast("Response", answer)

    async def _events(self, job: Job, item: Item) -> AsyncIterator[str]:
        self._record["outcome"] = "client gone"
        try:
            while not isinstance(item, Transcript):
                for event in self._event(item):
                    yield event
                item = await job.next()
            self._note(job, item)
            plain = answers.json_form(item, self._wish, self._length(item))
            plain["usage"] = answers.usage(item)
            yield answers.event("transcript.text.done", **plain)
            del self._record["outcome"]
        except Gone:
            pass
        except ApiError as error:
            self._record.update(outcome="failed", error=error.message)
            yield answers.error_event(error.body())

    def _event(self, item: Item) -> Iterator[str]:
        if isinstance(item, Segment):
            if self._wish.itn:  # numbers are written when they have ended
                yield from self._delta(separator(self._sent, item.text) + item.text)
            if self._wish.form == "verbose_json" and self._wish.segments:
                yield answers.event(
                    "transcript.text.segment",
                    **{**answers.segment_form(self._segments, item), "id": str(self._segments)},
                )
            self._segments += 1
        elif not isinstance(item, Transcript) and not self._wish.itn:
            logprobs = {"logprobs": [answers.logprob_form(item)]} if self._wish.logprobs else {}
            yield from self._delta(item.text, **logprobs)

    def _delta(self, text: str, **more: Any) -> Iterator[str]:
        if text:
            self._sent += text
            yield answers.event("transcript.text.delta", delta=text, **more)

    def _headers(self) -> dict[str, str]:
        ignored = ", ".join(self._wish.ignored)
        printable = "".join(c if " " <= c <= "~" else "?" for c in ignored).strip()
        return {IGNORED_HEADER: printable} if printable else {}

    def _length(self, transcript: Transcript) -> float:
        return transcript.timings.audio_ms / 1000 if self._seconds is None else self._seconds

    def _note(self, job: Job, transcript: Transcript) -> None:
        """For the log and the metrics."""
        seconds = self._length(transcript)
        self._metrics.recognized(job, seconds, transcript.timings.new_tokens)
        self._record.update(
            audio_s=round(seconds, 3),
            queue_ms=_milliseconds(job.queued_seconds),
            first_ms=_milliseconds(job.first_seconds),
            tokens=transcript.timings.new_tokens,
            language=transcript.language,
            finish=transcript.finish,
        )
        if self._settings.log_text:
            self._record["text"] = transcript.text


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(1000 * seconds, 1)
