"""From events of the engine to text in every form: tokens, segments, the transcript.

The way of a token: bytes -> whole characters -> text after the language -> script conversion -> ``Token``.
"""

from __future__ import annotations

import codecs
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from typing import NamedTuple, Protocol

from .audio import SAMPLE_RATE, Piece
from .engine import Event, RunResult
from .errors import ArgumentError
from .transcript import Segment, Timings, Token, Transcript


class Converter(Protocol):
    """Script conversion, of a whole text or piece by piece."""

    def convert(self, text: str) -> str: ...

    def feed(self, piece: str) -> str: ...

    def flush(self) -> str: ...


class Assembly:
    """Puts a transcription together, segment by segment.

    Args:
        language: The forced language, as the model spells it; None when it is detected.
        script: Chinese script to write; None keeps the model's.
        itn: Whether spoken Chinese numbers are written as digits.
        notes: What a reader should know about the audio; looked at when the transcript is made.
    """

    def __init__(
        self, language: str | None, script: str | None, itn: bool, notes: Sequence[str] = ()
    ) -> None:
        self.tokens: list[Token] = []
        self.done: list[Recognized] = []
        self._language = language
        self._script = script
        self._converter = None if script is None else _converter(script)
        self._itn = itn
        self._notes = notes
        self._last_text = ""
        self._origin_ns = 0
        self._place = (0.0, 0.0)  # of the segment in the audio, seconds

    def begin(self, piece: Piece) -> SegmentReader:
        """The reader of the next segment."""
        self._at_joint = True  # the first text of a piece may need a space before it
        self._place = piece.start / SAMPLE_RATE, piece.end / SAMPLE_RATE
        return SegmentReader(piece, self._language, len(self.done), len(self.tokens))

    def take(self, segment: SegmentReader, event: Event, start_ns: int) -> Token:
        """The token of an event. start_ns: When the engine got the segment's audio."""
        if not self._origin_ns:
            self._origin_ns = start_ns
        text = segment.feed(event)
        converter = self._active_converter(segment.language)
        return self._add(converter.feed(text) if converter else text, event)

    def end(self, segment: SegmentReader, result: RunResult, finish: str | None) -> Token | None:
        """Ends the segment. A token without an id, when there is text that the parser or the converter held back."""
        rest = self._flush(segment, finish)
        tokens = tuple(self.tokens[segment.first_token :])
        # In its place, not at the end: after an interruption the same end is handled once more.
        self.done[segment.index :] = [
            segment.recognized(result, finish, tokens, self.convert, self._normalize)
        ]
        return rest

    def fresh(self) -> Assembly:
        """An empty one of the same kind."""
        return Assembly(self._language, self._script, self._itn)

    def mend(self, segment: SegmentReader, mended: Recognized) -> None:
        """Puts another result in place of a segment that has ended."""
        self.done[segment.index] = mended
        self.tokens[segment.first_token :] = mended.segment.tokens

    @property
    def notes(self) -> Sequence[str]:
        """What a reader should know about the audio, so far."""
        return self._notes

    def convert(self, text: str, language: str | None) -> str:
        """A whole text in the wanted script."""
        converter = self._active_converter(language)
        return converter.convert(text) if converter else text

    def forget_tokens(self) -> Segment:
        """The last segment, without its tokens: hours of live speech must not grow by them."""
        last = self.done[-1]
        segment = replace(last.segment, tokens=())
        self.done[-1] = last._replace(segment=segment)
        self.tokens.clear()
        return segment

    @property
    def text(self) -> str:
        """The final text of the segments so far."""
        return join([part.segment.text for part in self.done])

    def transcript(self, finish: str | None, skipped: int = 0) -> Transcript:
        """What there is. skipped: Samples that are in no segment."""
        segments = tuple(part.segment for part in self.done)
        return Transcript(
            text=self.text,
            language=",".join(dict.fromkeys(segment.language for segment in segments if segment.language)),
            raw="\n".join(segment.raw for segment in segments),
            recognized=join([part.recognized for part in self.done]),
            converted=None if self._converter is None else join([part.converted for part in self.done]),
            normalized=self.text if self._itn else None,
            segments=segments,
            tokens=tuple(self.tokens),
            timings=self._timings(skipped),
            finish=finish,
            notes=tuple(self._notes),
        )

    def _flush(self, segment: SegmentReader, finish: str | None) -> Token | None:
        text = segment.flush(finish)
        converter = self._active_converter(segment.language)
        if converter:
            text = converter.feed(text) + converter.flush()
        return self._add(text, Event(self.tokens[-1].time_ns, None, None, False, b"")) if text else None

    def _add(self, text: str, event: Event) -> Token:
        if text:
            if self._at_joint:
                text = separator(self._last_text, text) + text
            self._last_text, self._at_joint = text, False
        text = sys.intern(text)  # a vocabulary's pieces come again and again
        elapsed_ms = (event.time_ns - self._origin_ns) / 1e6
        token = Token(text, event.id, event.logprob, elapsed_ms, event.time_ns, event.special, *self._place)
        self.tokens.append(token)
        return token

    def _active_converter(self, language: str | None) -> Converter | None:
        from .text import is_chinese

        return self._converter if is_chinese(language) else None

    def _normalize(self, text: str, language: str) -> str:
        from .text import is_chinese

        if not self._itn or not is_chinese(language):
            return text
        from .text.itn import normalize

        return normalize(text)

    def _timings(self, skipped: int = 0) -> Timings:
        """Of all segments. They are computed side by side: what counts is from the first begin to the last end."""
        skipped_ms = skipped * 1000 / SAMPLE_RATE
        if not self.done:
            return Timings.of_segments((), None, 0.0, skipped_ms)
        begin = min(part.start_ns for part in self.done)
        total_ms = (max(part.end_ns for part in self.done) - begin) / 1e6
        first = min((token.time_ns for token in self.tokens), default=None)
        parts = [part.segment.timings for part in self.done]
        first_token_ms = None if first is None else (first - begin) / 1e6
        return Timings.of_segments(parts, first_token_ms, total_ms, skipped_ms)


class Recognized(NamedTuple):
    """A finished piece, and its text after each step; the last one is the segment's."""

    segment: Segment
    recognized: str
    converted: str
    start_ns: int
    end_ns: int


class SegmentReader:
    """Events of one piece -> whole characters -> text after the language."""

    def __init__(self, piece: Piece, forced: str | None, index: int = 0, first_token: int = 0) -> None:
        from .text.parse import StreamParser

        self.index, self.first_token = index, first_token
        self._start, self._end = piece.start, piece.end
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
    ) -> Recognized:
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
        return Recognized(segment, parsed.text, converted, result.start_ns, result.end_ns)

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


def join(texts: Sequence[str]) -> str:
    joined = ""
    for text in texts:
        joined += separator(joined, text) + text
    return joined


def separator(before: str, after: str) -> str:
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
