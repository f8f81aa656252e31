"""One transcription in progress: tokens as they are made, and the transcript at the end.

The way of a token: bytes -> whole characters -> text after the language -> script conversion -> ``Token``.
"""

from __future__ import annotations

import codecs
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, NamedTuple, Protocol

from .ahead import Ahead
from .audio import SAMPLE_RATE, Piece
from .engine import Engine, Event, Options, Run, RunResult
from .errors import ArgumentError, Qwen3AsrError
from .transcript import Segment, Timings, Token, Transcript

if TYPE_CHECKING:
    from types import TracebackType


class Converter(Protocol):
    """Script conversion, of a whole text or piece by piece."""

    def convert(self, text: str) -> str: ...

    def feed(self, piece: str) -> str: ...

    def flush(self) -> str: ...


class Stream:
    """Iterates the tokens of a transcription while the engine makes them.

    The engine runs ahead on its own threads: reading late loses nothing and slows nothing, and a stream that nobody reads
    holds up nobody. After the last token ``transcript`` is there. ``close()``, leaving a ``with`` block early, and
    ``Model.abort()`` stop the engine; what it had made until then is the transcript, with the finish "abort". When a later
    piece of long audio fails, the error is raised and ``transcript`` keeps the pieces before it, with the finish "error".

    Made by ``Model.stream``.
    """

    def __init__(
        self,
        engine: Engine,
        pieces: Iterator[Piece],
        options: Options,
        script: str | None = None,
        itn: bool = False,
        *,
        notes: Sequence[str] = (),
    ) -> None:
        self._options = options
        self._converter = None if script is None else _converter(script)
        self._itn = itn
        self._notes = notes
        self._lock = threading.Lock()
        self._ready: deque[Token] = deque()
        self._tokens: list[Token] = []
        self._done: list[_Recognized] = []
        self._segment: _SegmentReader | None = None
        self._error: Exception | None = None
        self._transcript: Transcript | None = None
        self._last_text = ""
        self._origin_ns = 0
        self._ahead = Ahead(engine, pieces, options)
        weakref.finalize(self, self._ahead.abort)

    def __iter__(self) -> Iterator[Token]:
        return self

    def __next__(self) -> Token:
        with self._lock:
            while not self._ready:
                if self._error is not None:
                    raise self._error
                if self._transcript is not None:
                    raise StopIteration
                self._advance()
            return self._ready.popleft()

    def segments(self) -> Iterator[Segment]:
        """Iterates the segments as they are finished, in order; each one's tokens are in it."""
        index = 0
        while True:
            with self._lock:
                while index >= len(self._done):
                    if self._error is not None:
                        raise self._error
                    if self._transcript is not None:
                        return
                    self._advance()
                segment = self._done[index].segment
            yield segment
            index += 1

    @property
    def has_transcript(self) -> bool:
        """Whether ``transcript`` is there, at least in part."""
        return self._transcript is not None

    @property
    def transcript(self) -> Transcript:
        """The result. Raises Qwen3AsrError before the tokens are read or the stream is closed, or when there is none."""
        if self._transcript is not None:
            return self._transcript
        if self._error is not None:
            raise self._error
        raise Qwen3AsrError("the transcript is there when all tokens are read or the stream is closed")

    def finish(self) -> Transcript:
        """Waits for the end and returns the transcript; the tokens can still be iterated."""
        with self._lock:
            while self._transcript is None:
                if self._error is not None:
                    raise self._error
                self._advance()
            return self._transcript

    def abort(self) -> None:
        """Stops the engine within one decode step; from any thread. The tokens made until then can still be read."""
        self._ahead.abort()

    def close(self) -> None:
        """Stops the engine, if it still runs, and keeps what it had made. Harmless at the end."""
        self.abort()
        with self._lock:
            while self._transcript is None and self._error is None:
                self._advance()

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _advance(self) -> None:
        """Takes one event of the engine. An interruption anywhere leaves a state that the next call goes on from."""
        try:
            if self._segment is None:
                self._begin_segment()
                return
            event = self._segment.run.next()
            if isinstance(event, Event):
                self._take(self._segment, event)
            elif isinstance(event, RunResult):
                self._end_segment(self._segment, event)
        except Exception as error:
            self._ahead.abort()
            self._error = error
            if self._done:
                self._transcript = self._assemble("error")
            raise

    def _begin_segment(self) -> None:
        following = self._ahead.next()
        if following is None:
            finish = self._done[-1].segment.finish if self._ahead.complete and self._done else "abort"
            self._transcript = self._assemble(finish)
            return
        self._at_joint = True  # the first text of a piece may need a space before it
        self._segment = _SegmentReader(*following, self._options.language, len(self._done), len(self._tokens))

    def _take(self, segment: _SegmentReader, event: Event) -> None:
        text = segment.feed(event)
        converter = self._active_converter(segment.language)
        self._add(converter.feed(text) if converter else text, event)

    def _end_segment(self, segment: _SegmentReader, result: RunResult) -> None:
        finish = result.finish or ("abort" if self._ahead.aborted else None)
        self._flush(segment, finish)
        tokens = tuple(self._tokens[segment.first_token :])
        # In its place, not at the end: after an interruption the same end is handled once more.
        self._done[segment.index :] = [
            segment.recognized(result, finish, tokens, self._convert, self._normalize)
        ]
        self._segment = None
        if finish == "abort":
            self._transcript = self._assemble("abort")

    def _flush(self, segment: _SegmentReader, finish: str | None) -> None:
        """What parser and converter held back goes out as a token of its own, without an id."""
        text = segment.flush(finish)
        converter = self._active_converter(segment.language)
        if converter:
            text = converter.feed(text) + converter.flush()
        if text:
            self._add(text, Event(self._tokens[-1].time_ns, None, None, False, b""))

    def _add(self, text: str, event: Event) -> None:
        if text:
            if self._at_joint:
                text = _separator(self._last_text, text) + text
            self._last_text, self._at_joint = text, False
        if not self._origin_ns and self._segment is not None:
            self._origin_ns = self._segment.run.start_ns
        elapsed_ms = (event.time_ns - self._origin_ns) / 1e6
        token = Token(text, event.id, event.logprob, elapsed_ms, event.time_ns, event.special)
        self._tokens.append(token)
        self._ready.append(token)

    def _active_converter(self, language: str | None) -> Converter | None:
        from .text import is_chinese

        return self._converter if is_chinese(language) else None

    def _convert(self, text: str, language: str) -> str:
        converter = self._active_converter(language)
        return converter.convert(text) if converter else text

    def _normalize(self, text: str, language: str) -> str:
        from .text import is_chinese

        if not self._itn or not is_chinese(language):
            return text
        from .text.itn import normalize

        return normalize(text)

    def _assemble(self, finish: str | None) -> Transcript:
        segments = tuple(part.segment for part in self._done)
        return Transcript(
            text=_join([segment.text for segment in segments]),
            language=",".join(dict.fromkeys(segment.language for segment in segments if segment.language)),
            raw="\n".join(segment.raw for segment in segments),
            recognized=_join([part.recognized for part in self._done]),
            converted=None if self._converter is None else _join([part.converted for part in self._done]),
            normalized=_join([segment.text for segment in segments]) if self._itn else None,
            segments=segments,
            tokens=tuple(self._tokens),
            timings=self._timings(),
            finish=finish,
            notes=tuple(self._notes),
        )

    def _timings(self) -> Timings:
        """Of all segments. They are computed side by side: what counts is from the first begin to the last end."""
        if not self._done:
            return Timings()
        begin = min(part.start_ns for part in self._done)
        total_ms = (max(part.end_ns for part in self._done) - begin) / 1e6
        first = min((token.time_ns for token in self._tokens), default=None)
        parts = [part.segment.timings for part in self._done]
        return Timings.of_segments(parts, None if first is None else (first - begin) / 1e6, total_ms)


class _Recognized(NamedTuple):
    """A finished piece, and its text after each step; the last one is the segment's."""

    segment: Segment
    recognized: str
    converted: str
    start_ns: int
    end_ns: int


class _SegmentReader:
    """Events of one piece -> whole characters -> text after the language."""

    def __init__(
        self, piece: Piece, run: Run, forced: str | None, index: int = 0, first_token: int = 0
    ) -> None:
        from .text.parse import StreamParser

        self.run, self.index, self.first_token = run, index, first_token
        self._start, self._end = piece.start, piece.start + len(piece.pcm)
        self._forced = forced
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._parser = StreamParser(forced)
        self._raw: list[str] = []
        self._times: list[int] = []

    @property
    def language(self) -> str | None:
        return self._parser.language

    def feed(self, event: Event) -> str:
        self._times.append(event.time_ns)
        return self._parser.feed(self._without_tag(self._decoder.decode(event.text)))

    def flush(self, finish: str | None) -> str:
        """The rest of the text. The beginning of a character that an abort or a limit has cut is dropped."""
        return "" if self._cut_before_text(finish) else self._parser.flush()

    def _cut_before_text(self, finish: str | None) -> bool:
        """Whether the answer was stopped while it still named the language: then nothing of it is text."""
        return finish in ("abort", "length") and self._parser.language is None

    def _without_tag(self, text: str) -> str:
        """chatllm.cpp ends a prompt with a forced language before <asr_text>, so that the model says it as text."""
        if self._forced and text and not "".join(self._raw):
            text = _remove_tag(text)
        self._raw.append(text)
        return text

    def recognized(
        self,
        result: RunResult,
        finish: str | None,
        tokens: tuple[Token, ...],
        convert: Callable[[str, str], str],
        normalize: Callable[[str, str], str],
    ) -> _Recognized:
        from .text.parse import parse_output

        raw = "".join(self._raw)
        parsed = parse_output("" if self._cut_before_text(finish) else raw, self._forced)
        converted = convert(parsed.text, parsed.language)
        segment = Segment(
            start=self._start / SAMPLE_RATE,
            end=self._end / SAMPLE_RATE,
            text=normalize(converted, parsed.language),
            language=parsed.language,
            raw=raw,
            finish=finish,
            timings=self._timings(result),
            tokens=tokens,
        )
        return _Recognized(segment, parsed.text, converted, result.start_ns, result.end_ns)

    def _timings(self, result: RunResult) -> Timings:
        c = result.measured
        if c is not None:
            measured: dict[str, float | None] = {
                item.name: c[item.name] for item in fields(Timings) if item.name in c
            }
            count = int(c["new_tokens"])
            measured["first_token_ms"] = c["first_token_ms"] if count else None
            measured["per_token_ms"] = c["decode_ms"] / (count - 1) if count > 1 else None
            return Timings(**measured)  # type: ignore[arg-type]
        times, count = self._times, len(self._times)
        return Timings(
            audio_ms=(self._end - self._start) * 1000 / SAMPLE_RATE,
            first_token_ms=(times[0] - result.start_ns) / 1e6 if times else None,
            decode_ms=(result.end_ns - times[0]) / 1e6 if times else 0.0,
            per_token_ms=(times[-1] - times[0]) / 1e6 / (count - 1) if count > 1 else None,
            total_ms=(result.end_ns - result.start_ns) / 1e6,
            new_tokens=count,
        )


def _remove_tag(text: str) -> str:
    from .text.parse import TEXT_TAG

    return text[len(TEXT_TAG) :] if text.startswith(TEXT_TAG) else text


def _converter(script: str) -> Converter:
    from .text.script import ScriptConverter

    try:
        return ScriptConverter(script)
    except ValueError as error:
        raise ArgumentError(f"script: {error}") from None


def _join(texts: Sequence[str]) -> str:
    joined = ""
    for text in texts:
        joined += _separator(joined, text) + text
    return joined


def _separator(before: str, after: str) -> str:
    """What stands between the texts of consecutive pieces: a space, but none beside writing that has no spaces."""
    if not before or not after or _spaceless(before[-1]) or _spaceless(after[0]):
        return ""
    return " "


# Thai; CJK, kana and their punctuation up to Yi; compatibility and full-width forms; the supplementary ideographs.
_SPACELESS = (
    (0x0E00, 0x0E7F),
    (0x2E80, 0xA4CF),
    (0xF900, 0xFAFF),
    (0xFE30, 0xFE4F),
    (0xFF00, 0xFFEF),
    (0x20000, 0x3FFFF),
)


def _spaceless(character: str) -> bool:
    """Whether a character belongs to writing without spaces between words."""
    return any(first <= ord(character) <= last for first, last in _SPACELESS)
