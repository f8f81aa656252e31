"""One transcription in progress: tokens as they are made, and the transcript at the end.

The way of a token: bytes -> whole characters -> text after the language -> script conversion -> ``Token``.
"""

from __future__ import annotations

import codecs
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from .audio import SAMPLE_RATE, Piece
from .engine import Engine, Event, Options, RunResult
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

    The engine runs ahead on its own thread: reading late loses nothing and slows nothing. After the last token
    ``transcript`` is there. ``close()``, leaving a ``with`` block early, and ``Model.abort()`` stop the engine; what it had
    made until then is the transcript, with the finish "abort". When a later piece of long audio fails, the error is
    raised and ``transcript`` keeps the pieces before it, with the finish "error".

    Made by ``Model.stream``.
    """

    def __init__(
        self, engine: Engine, pieces: Iterator[Piece], options: Options, script: str | None, itn: bool
    ) -> None:
        self._options = options
        self._pieces = pieces
        self._converter = None if script is None else _converter(script)
        self._itn = itn
        self._lock = threading.Lock()
        self._ready: deque[Token] = deque()
        self._tokens: list[Token] = []
        self._done: list[_Recognized] = []
        self._error: Exception | None = None
        self._transcript: Transcript | None = None
        self._last_text = ""
        first = next(pieces)  # bad audio fails before the engine is asked
        self._call = engine.begin()
        weakref.finalize(self, self._call.close)
        try:
            self._begin(first)
        except BaseException:
            self._call.close()
            raise
        self._origin_ns = 0

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
        self._call.abort()

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

    def _begin(self, piece: Piece) -> None:
        self._segment = _SegmentReader(piece, self._options.language)
        self._at_joint = True  # the first text of a piece may need a space before it
        self._call.run(piece.pcm, self._options)

    def _advance(self) -> None:
        """Takes one event of the engine."""
        try:
            event = self._call.next()
            if isinstance(event, Event):
                self._take(event)
            else:
                self._end_segment(event)
        except Exception as error:
            self._call.close()
            self._error = error
            if self._done:
                self._transcript = self._assemble("error")
            raise

    def _take(self, event: Event) -> None:
        if not self._tokens:
            self._origin_ns = self._call.start_ns
        text = self._segment.feed(event)
        converter = self._active_converter(self._segment.language)
        self._add(converter.feed(text) if converter else text, event)

    def _end_segment(self, result: RunResult) -> None:
        finish = result.finish or ("abort" if self._call.aborted else None)
        self._flush(finish)
        self._done.append(self._segment.recognized(result, finish, self._convert, self._normalize))
        piece = None if self._call.aborted else next(self._pieces, None)
        if piece is not None:
            self._begin(piece)
            return
        self._call.close()
        self._transcript = self._assemble(self._done[-1].segment.finish)

    def _flush(self, finish: str | None) -> None:
        """What parser and converter held back goes out as a token of its own, without an id."""
        text = self._segment.flush(finish)
        converter = self._active_converter(self._segment.language)
        if converter:
            text = converter.feed(text) + converter.flush()
        if text:
            self._add(text, Event(self._tokens[-1].time_ns, None, None, False, b""))

    def _add(self, text: str, event: Event) -> None:
        if text:
            if self._at_joint:
                text = _separator(self._last_text, text) + text
            self._last_text, self._at_joint = text, False
        time_ms = (event.time_ns - self._origin_ns) / 1e6
        token = Token(text, event.id, event.logprob, time_ms, event.time_ns, event.special)
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
            timings=_sum([segment.timings for segment in segments]),
            finish=finish,
        )


class _Recognized(NamedTuple):
    """A finished piece, and its text after each step; the last one is the segment's."""

    segment: Segment
    recognized: str
    converted: str


class _SegmentReader:
    """Events of one piece -> whole characters -> text after the language."""

    def __init__(self, piece: Piece, forced: str | None) -> None:
        from .text.parse import StreamParser

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
        )
        return _Recognized(segment, parsed.text, converted)

    def _timings(self, result: RunResult) -> Timings:
        c = result.measured
        if c is not None:
            count = int(c["new_tokens"])
            return Timings(
                load_ms=c["load_ms"],
                audio_ms=c["audio_ms"],
                mel_ms=c["mel_ms"],
                encode_ms=c["encode_ms"],
                prefill_ms=c["prefill_ms"],
                first_token_ms=c["first_token_ms"] if count else None,
                decode_ms=c["decode_ms"],
                per_token_ms=c["decode_ms"] / (count - 1) if count > 1 else None,
                total_ms=c["total_ms"],
                audio_tokens=int(c["audio_tokens"]),
                prompt_tokens=int(c["prompt_tokens"]),
                new_tokens=count,
                threads=int(c["threads"]),
            )
        times, count = self._times, len(self._times)
        return Timings(
            load_ms=None,
            audio_ms=(self._end - self._start) * 1000 / SAMPLE_RATE,
            mel_ms=None,
            encode_ms=None,
            prefill_ms=None,
            first_token_ms=(times[0] - result.start_ns) / 1e6 if times else None,
            decode_ms=(result.end_ns - times[0]) / 1e6 if times else 0.0,
            per_token_ms=(times[-1] - times[0]) / 1e6 / (count - 1) if count > 1 else None,
            total_ms=(result.end_ns - result.start_ns) / 1e6,
            audio_tokens=None,
            prompt_tokens=None,
            new_tokens=count,
            threads=None,
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


def _sum(parts: Sequence[Timings]) -> Timings:
    """Times and counts of all pieces; load, first token and threads are those of the first piece."""
    first = parts[0]
    if len(parts) == 1:
        return first
    steps = sum(max(0, part.new_tokens - 1) for part in parts)
    decode = _total([part.decode_ms for part in parts])
    return Timings(
        load_ms=first.load_ms,
        audio_ms=sum(part.audio_ms for part in parts),
        mel_ms=_total([part.mel_ms for part in parts]),
        encode_ms=_total([part.encode_ms for part in parts]),
        prefill_ms=_total([part.prefill_ms for part in parts]),
        first_token_ms=first.first_token_ms,
        decode_ms=decode,
        per_token_ms=decode / steps if decode is not None and steps else None,
        total_ms=sum(part.total_ms for part in parts),
        audio_tokens=_count([part.audio_tokens for part in parts]),
        prompt_tokens=_count([part.prompt_tokens for part in parts]),
        new_tokens=sum(part.new_tokens for part in parts),
        threads=first.threads,
    )


def _total(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


def _count(values: Sequence[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None
