"""WebSocket /v1/realtime: live speech in the events of OpenAI's realtime transcription.

With ``turn_detection`` (the default) the audio goes into ``Model.live``: an item is an utterance, its text comes when it has
ended. With ``turn_detection: null`` an item is what the client commits, and its text comes token by token.
Two things are ours: ``script`` and ``itn`` beside the language, and the event
``conversation.item.input_audio_transcription.hypothesis`` with the text that may still change, for clients that include
``item.input_audio_transcription.hypothesis``.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import uuid
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import anyio.to_thread
import numpy as np
from starlette.websockets import WebSocketDisconnect

from ..errors import Qwen3AsrError
from ..transcript import Segment, Transcript
from . import access, errors, form
from .errors import ApiError
from .work import Gone

if TYPE_CHECKING:
    from starlette.websockets import WebSocket

    from ..audio import Pcm
    from ..live import Live, Update
    from ..model import Model
    from .metrics import Metrics
    from .settings import Settings
    from .work import Desk

_DELTA = "conversation.item.input_audio_transcription.delta"
_COMPLETED = "conversation.item.input_audio_transcription.completed"
_FAILED = "conversation.item.input_audio_transcription.failed"
_HYPOTHESIS = "conversation.item.input_audio_transcription.hypothesis"
_INCLUDE = "item.input_audio_transcription.hypothesis"
_RATES = (8000, 48000)
_BYTES_PER_SAMPLE = 2


@dataclass(frozen=True)
class _Choice:
    """What a client has chosen for its session."""

    rate: int = 24000
    model: str = ""
    language: str | None = None
    context: str = ""
    script: str | None = None
    itn: bool = False
    turns: bool = True
    hypotheses: bool = False

    def to_dict(self) -> dict[str, Any]:
        """As clients read it."""
        words = {
            "model": self.model,
            "language": self.language,
            "prompt": self.context,
            "script": self.script,
            "itn": self.itn,
        }
        return {
            "type": "transcription",
            "audio": {
                "input": {
                    "format": {"type": "audio/pcm", "rate": self.rate},
                    "transcription": words,
                    "turn_detection": {"type": "server_vad"} if self.turns else None,
                }
            },
            "include": [_INCLUDE] if self.hypotheses else [],
        }


class Realtime:
    """The endpoint."""

    def __init__(
        self, model: Model, names: list[str], settings: Settings, desk: Desk, metrics: Metrics
    ) -> None:
        self.model, self.names, self.settings, self.desk, self.metrics = model, names, settings, desk, metrics
        self._sessions = 0

    async def serve(self, socket: WebSocket) -> None:
        """Serves one connection."""
        try:
            self._check(socket)
        except ApiError as error:
            socket.scope["state"]["record"]["error"] = error.message
            await access.refuse(error, socket.scope, socket.receive, socket.send)
            return
        self._sessions += 1
        self.metrics.sessions.set(self._sessions)
        session = _Session(self, socket)
        try:
            await socket.accept("realtime" if "realtime" in socket.scope["subprotocols"] else None)
            await session.run()
        except WebSocketDisconnect:
            pass
        finally:
            self._sessions -= 1
            self.metrics.sessions.set(self._sessions)
            session.abort()
            socket.scope["state"]["record"].update(audio_s=round(session.seconds, 3), items=session.items)

    def _check(self, socket: WebSocket) -> None:
        if self._sessions >= self.settings.max_sessions:
            message = f"{self._sessions} live sessions are open, which is the most; try again later"
            raise ApiError(429, message, "rate_limit_exceeded", headers={"Retry-After": "10"})
        form.check_model(socket.query_params.get("model", ""), self.names)


class _Session:
    """One connection."""

    def __init__(self, of: Realtime, socket: WebSocket) -> None:
        self._of, self._socket = of, socket
        self._choice = _Choice(model=of.names[0])
        self._live: _LiveTurns | None = None
        self._buffer = bytearray()
        self._tasks: set[asyncio.Future[None]] = set()
        self._last_item: str | None = None
        self.seconds = 0.0
        self.items = 0

    async def run(self) -> None:
        """Until the client leaves."""
        await self.send("session.created", session=self._choice.to_dict())
        while True:
            event: Any = None
            try:
                event = _object(await self._socket.receive_text())
                await self._take(event)
            except KeyError:  # a binary frame
                await self._complain(
                    ApiError(400, "send events as text with JSON, audio as base64", "bad_event")
                )
            except ApiError as error:
                await self._complain(error, event)
            except Qwen3AsrError as error:
                await self._complain(errors.of_library(error), event)

    def abort(self) -> None:
        """The client has left, or the server ends."""
        if self._live is not None:
            self._live.abort()
        for task in self._tasks:
            task.cancel()

    async def send(self, kind: str, **fields: Any) -> None:
        """Sends an event."""
        event = {"type": kind, "event_id": _identity("event"), **fields}
        await self._socket.send_text(json.dumps(event, ensure_ascii=False))

    def begin_item(self) -> tuple[str, str | None]:
        """The name of a new item, and of the one before."""
        before, self._last_item = self._last_item, _identity("item")
        self.items += 1
        return self._last_item, before

    async def _complain(self, error: ApiError, event: Any = None) -> None:
        about = event.get("event_id") if isinstance(event, dict) else None
        await self.send("error", error={**error.body()["error"], "event_id": about})

    async def _take(self, event: dict[str, Any]) -> None:
        kind = event.get("type")
        if kind == "session.update":
            choice = _chosen(self._choice, event.get("session"), self._of.names)
            await self._end_turns()
            self._choice = choice
            await self.send("session.updated", session=choice.to_dict())
        elif kind == "input_audio_buffer.append":
            await self._append(_pcm(event.get("audio")))
        elif kind == "input_audio_buffer.commit":
            await self._commit()
        elif kind == "input_audio_buffer.clear":
            self._buffer.clear()
            if self._live is not None:
                self._live.abort()
                self._live = None
            await self.send("input_audio_buffer.cleared")
        else:
            raise ApiError(
                400, f"there is no event {str(kind)[:60]!r} for transcription", "bad_event", "type"
            )

    async def _append(self, pcm: bytes) -> None:
        self.seconds += len(pcm) / _BYTES_PER_SAMPLE / self._choice.rate
        if self._choice.turns:
            if self._live is None:
                self._live = _LiveTurns(self, self._of.model, self._choice)
            await self._live.feed(pcm)
            return
        seconds = (len(self._buffer) + len(pcm)) / _BYTES_PER_SAMPLE / self._choice.rate
        if seconds > self._of.settings.max_audio_seconds or len(self._buffer) > self._of.settings.max_upload:
            raise ApiError(
                413, f"the buffer would hold {seconds:.0f} s; commit or clear it", "audio_too_long"
            )
        self._buffer += pcm

    async def _commit(self) -> None:
        if self._choice.turns:
            if self._live is None:
                raise ApiError(400, "there is no audio to commit; append some first", "buffer_empty")
            await self._end_turns()
            return
        if not self._buffer:
            raise ApiError(400, "there is no audio to commit; append some first", "buffer_empty")
        samples = np.frombuffer(bytes(self._buffer), "<i2").astype(np.float32) / np.float32(32768)
        self._buffer.clear()
        item, before = self.begin_item()
        await self.send("input_audio_buffer.committed", item_id=item, previous_item_id=before)
        # Beside the reading of events, so that a client that leaves is noticed.
        task = asyncio.ensure_future(self._recognize(item, samples, self._choice))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _recognize(self, item: str, samples: Pcm, choice: _Choice) -> None:
        job = None
        try:
            job = self._of.desk.begin(
                lambda: self._of.model.stream(
                    samples,
                    choice.language,
                    sample_rate=choice.rate,
                    context=choice.context,
                    script=choice.script,
                    itn=choice.itn,
                    max_new_tokens=self._of.settings.max_new_tokens,
                ),
                detailed=True,
            )
            while not isinstance(part := await job.next(), Transcript):
                if not isinstance(part, Segment) and part.text and not choice.itn:
                    await self.send(_DELTA, item_id=item, content_index=0, delta=part.text)
        except ApiError as error:
            await self.send(_FAILED, item_id=item, content_index=0, error=error.body()["error"])
            return
        except Gone:
            return
        finally:
            if job is not None:
                job.abort()
        seconds = len(samples) / choice.rate
        self._of.metrics.recognized(job, seconds, part.timings.new_tokens)
        if choice.itn and part.text:
            await self.send(_DELTA, item_id=item, content_index=0, delta=part.text)
        await self.complete(item, part.text, seconds)

    async def complete(self, item: str, text: str, seconds: float, **more: Any) -> None:
        """An item has its final text."""
        usage = {"type": "duration", "seconds": round(seconds, 3)}
        await self.send(_COMPLETED, item_id=item, content_index=0, transcript=text, usage=usage, **more)

    async def _end_turns(self) -> None:
        live, self._live = self._live, None
        if live is not None:
            await live.finish()


class _LiveTurns:
    """A live session of the model, whose utterances become items."""

    def __init__(self, session: _Session, model: Model, choice: _Choice) -> None:
        self._session, self._choice = session, choice
        loop = asyncio.get_running_loop()
        self._updates: asyncio.Queue[Update | None] = asyncio.Queue()

        def tell(update: Update) -> None:
            loop.call_soon_threadsafe(self._updates.put_nowait, update)

        self._live: Live = model.live(
            choice.language, context=choice.context, script=choice.script, itn=choice.itn, on_update=tell
        )
        self._reader = asyncio.ensure_future(self._read())
        self._open: tuple[str, str | None, float] | None = None  # item, the one before, its start
        self._end = 0.0
        self._stable = ""

    async def feed(self, pcm: bytes) -> None:
        """Waits while a minute of audio is not yet recognized."""
        await anyio.to_thread.run_sync(self._live.feed, pcm, self._choice.rate)

    async def finish(self) -> None:
        """Waits until everything is recognized and sent."""
        try:
            await anyio.to_thread.run_sync(self._live.finish)
        finally:
            self._updates.put_nowait(None)
            await self._reader

    def abort(self) -> None:
        """Drops what is not recognized yet."""
        self._live.abort()
        self._reader.cancel()

    async def _read(self) -> None:
        while (update := await self._updates.get()) is not None:
            await self._show(update)
        if self._open is not None:
            await self._close("")

    async def _show(self, update: Update) -> None:
        session = self._session
        if self._open is not None and update.start != self._open[2]:
            await self._close("")
        if self._open is None:
            item, before = session.begin_item()
            self._open = (item, before, update.start)
            start = round(1000 * update.start)
            await session.send("input_audio_buffer.speech_started", item_id=item, audio_start_ms=start)
        self._end = update.end
        grown = update.stable[len(self._stable) :]
        self._stable = update.stable
        if grown:
            await self._close(grown.lstrip())
        elif self._choice.hypotheses:
            await session.send(_HYPOTHESIS, item_id=self._open[0], content_index=0, text=update.tail)

    async def _close(self, text: str) -> None:
        """The utterance has ended."""
        assert self._open is not None
        (item, before, start), self._open = self._open, None
        session = self._session
        end = round(1000 * self._end)
        await session.send("input_audio_buffer.speech_stopped", item_id=item, audio_end_ms=end)
        await session.send("input_audio_buffer.committed", item_id=item, previous_item_id=before)
        if text:
            await session.send(_DELTA, item_id=item, content_index=0, delta=text)
        await session.complete(item, text, self._end - start, start=round(start, 3), end=round(self._end, 3))


def _identity(kind: str) -> str:
    return f"{kind}_{uuid.uuid4().hex[:20]}"


def _object(text: str) -> dict[str, Any]:
    try:
        event = json.loads(text)
    except (ValueError, TypeError, RecursionError):
        event = None
    if not isinstance(event, dict):
        raise ApiError(400, "an event must be a JSON object with a 'type'", "bad_event")
    return event


def _pcm(audio: object) -> bytes:
    try:
        pcm = base64.b64decode(audio, validate=True) if isinstance(audio, str) else b""
    except (binascii.Error, ValueError):
        pcm = b""
    if not pcm or len(pcm) % _BYTES_PER_SAMPLE:
        message = "'audio' must be base64 of 16-bit little-endian samples, at least one"
        raise ApiError(400, message, "invalid_audio", "audio")
    return pcm


def _chosen(old: _Choice, session: object, names: list[str]) -> _Choice:
    """The choice after a session.update; what it does not name stays. Raises ApiError."""
    session = _part(session, "session")
    given = _part(session.get("audio", {}), "session.audio")
    given = _part(given.get("input", {}), "session.audio.input")
    choice = old
    if "format" in given:
        shape = _part(given["format"], "format")
        rate = shape.get("rate", 24000)
        if shape.get("type") != "audio/pcm" or type(rate) is not int or not _RATES[0] <= rate <= _RATES[1]:
            message = f"the format must be audio/pcm with a rate from {_RATES[0]} to {_RATES[1]} Hz"
            raise ApiError(400, message, "unsupported_value", "format")
        choice = replace(choice, rate=rate)
    if "turn_detection" in given:
        turns = given["turn_detection"]
        if turns is not None and _part(turns, "turn_detection").get("type") not in (
            "server_vad",
            "semantic_vad",
        ):
            raise ApiError(
                400, "turn_detection must be server_vad or null", "unsupported_value", "turn_detection"
            )
        choice = replace(choice, turns=turns is not None)
    if "include" in session:
        include = session["include"]
        choice = replace(choice, hypotheses=isinstance(include, list) and _INCLUDE in include)
    changes: dict[str, Any] = {}
    words = _part(given.get("transcription") or {}, "transcription")
    for name, field in (
        ("language", "language"),
        ("prompt", "context"),
        ("script", "script"),
        ("model", "model"),
    ):
        if name in words:
            value = words[name]
            if value is not None and not isinstance(value, str):
                raise ApiError(400, f"{name} must be a text", "invalid_value", name)
            changes[field] = value or (None if name in ("language", "script") else "")
    if "itn" in words:
        changes["itn"] = words["itn"] is True
    choice = replace(choice, **changes)
    form.check_model(choice.model, names)
    return choice


def _part(value: object, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ApiError(400, f"{name} must be an object", "invalid_value", name)
    return value
