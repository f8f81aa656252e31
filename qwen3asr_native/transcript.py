"""What a transcription gives: its text in every form, its tokens, its times."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

# Hours of speech have tens of thousands of them.
_SLOTS: dict[str, bool] = {"slots": True} if sys.version_info >= (3, 10) else {}


@dataclass(frozen=True, **_SLOTS)
class Token:
    """One token of the answer, in the order of its making.

    Attributes:
        text: What the token adds to the recognized text; whole characters only. Empty for the tokens that name the
            language and for one that ends inside a character. Script conversion may move text to a later token.
        id: Token id; None where the library does not tell.
        logprob: Natural logarithm of the token's probability; None where the library does not tell.
        elapsed_ms: Milliseconds of computing, from the moment the engine got the audio to the choice of this token, on
            the engine's clock. Not a place in the audio.
        time_ns: The same moment on CLOCK_MONOTONIC, comparable with ``time.monotonic_ns()`` on Linux.
        special: Whether it is a special token such as ``<asr_text>``.
        start: Begin of the audio that it is from, seconds: that of its segment. ``Word`` is finer.
        end: End of that audio, seconds.
    """

    text: str
    id: int | None
    logprob: float | None
    elapsed_ms: float
    time_ns: int
    special: bool = False
    start: float = 0.0
    end: float = 0.0

    @property
    def time_ms(self) -> float:
        """The old name of ``elapsed_ms``."""
        warnings.warn(
            "Token.time_ms is called elapsed_ms: it is computing time, not a place in the audio",
            DeprecationWarning,
            stacklevel=2,
        )
        return self.elapsed_ms


def _first(values: Sequence[Any]) -> Any:
    return values[0]


def _total(values: Sequence[Any]) -> Any:
    return None if any(value is None for value in values) else sum(values)


def _unknown(values: Sequence[Any]) -> Any:
    """For what only the whole tells."""
    return None


def _timing(label: str | None, over_segments: Callable[[Sequence[Any]], Any], default: Any = None) -> Any:
    """A field of Timings. label: What a person calls it; over_segments: Its value for several segments."""
    return field(default=default, metadata={"label": label, "over_segments": over_segments})


@dataclass(frozen=True)
class Timings:
    """Times of a transcription in milliseconds, read on the engine's clock; None where the library does not tell.

    Fields of the C structure ``chatllm_asr_timings`` have its names.

    Attributes:
        load_ms: Loading of the model, once, not part of ``total_ms``.
        audio_ms: Length of the audio, with what was left out.
        mel_ms: Log-mel spectrogram.
        encode_ms: Audio encoder.
        prefill_ms: Decoder over the prompt.
        first_token_ms: From the moment the engine got the audio to the first token; None when there was none.
        decode_ms: All decode steps after the first token.
        per_token_ms: Mean of those steps; None with fewer than two tokens.
        total_ms: From the moment the engine got the audio to the end of the text. Of several segments, which are
            computed side by side, it is less than the sum.
        audio_tokens: Tokens that stand for the audio in the prompt.
        prompt_tokens: Tokens of the prompt, audio included.
        new_tokens: Tokens of the answer.
        threads: Threads that computed.
        skipped_ms: Audio without speech that was left out, not recognized.
        retries: Segments that were recognized once more, see ``Segment.marks``.
    """

    load_ms: float | None = _timing("load", _first)
    audio_ms: float = _timing(None, _total, 0.0)
    mel_ms: float | None = _timing("mel", _total)
    encode_ms: float | None = _timing("encode", _total)
    prefill_ms: float | None = _timing("prefill", _total)
    first_token_ms: float | None = _timing("first token", _unknown)
    decode_ms: float | None = _timing(None, _total)
    per_token_ms: float | None = _timing("per token", _unknown)
    total_ms: float = _timing("total", _unknown, 0.0)
    audio_tokens: int | None = _timing(None, _total)
    prompt_tokens: int | None = _timing(None, _total)
    new_tokens: int = _timing(None, _total, 0)
    threads: int | None = _timing(None, _first)
    skipped_ms: float = _timing(None, _total, 0.0)
    retries: int = _timing(None, _total, 0)

    @property
    def real_time_factor(self) -> float:
        """Computing time over length of the audio; below 1 is faster than speech."""
        return self.total_ms / self.audio_ms if self.audio_ms else float("inf")

    @classmethod
    def of_segments(
        cls, parts: Sequence[Timings], first_token_ms: float | None, total_ms: float, skipped_ms: float = 0.0
    ) -> Timings:
        """Times and counts of all segments together, and of what was left out; what is not a sum is given."""
        if not parts:
            return cls(audio_ms=skipped_ms, skipped_ms=skipped_ms)
        if len(parts) == 1:
            audio_ms = parts[0].audio_ms + skipped_ms
            return replace(parts[0], audio_ms=audio_ms, skipped_ms=skipped_ms) if skipped_ms else parts[0]
        merged = {
            item.name: item.metadata["over_segments"]([getattr(part, item.name) for part in parts])
            for item in fields(cls)
        }
        steps = sum(max(0, part.new_tokens - 1) for part in parts)
        decode = merged["decode_ms"]
        merged["per_token_ms"] = decode / steps if decode is not None and steps else None
        merged["first_token_ms"], merged["total_ms"] = first_token_ms, total_ms
        merged["audio_ms"], merged["skipped_ms"] = merged["audio_ms"] + skipped_ms, skipped_ms
        return cls(**merged)


@dataclass(frozen=True)
class Word:
    """A word and when it is said.

    Attributes:
        text: The word, as the text has it.
        start: Begin in the audio, seconds.
        end: End in the audio, seconds.
        offset: Index of its first character in the text that it belongs to.
        end_offset: Index after its last character.
    """

    text: str
    start: float
    end: float
    offset: int = 0
    end_offset: int = 0


@dataclass(frozen=True)
class Segment:
    """One piece of the audio that was recognized in one go; short audio has exactly one.

    Attributes:
        start: Begin in the audio, seconds.
        end: End in the audio, seconds.
        text: Final text of the piece.
        language: English name of its language; empty when there was no speech.
        raw: The model's whole answer, as it came.
        finish: "stop" (the model ended the text), "length" (limit of tokens or context), "abort" or "loop" (runaway
            repetition, stopped early); None where the library does not tell.
        timings: Times of the piece.
        tokens: Its tokens.
        words: Its words with their times, when they were asked for.
        marks: What was done to it: "retried" (the first answer ran away in a repetition; this is the second, of two
            halves and without context), "echo" (the answer was the context, on audio without speech; it was emptied).
    """

    start: float
    end: float
    text: str
    language: str
    raw: str
    finish: str | None
    timings: Timings
    tokens: tuple[Token, ...] = ()
    words: tuple[Word, ...] = ()
    marks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Transcript:
    """A finished, or aborted, transcription.

    Attributes:
        text: The text after all steps that were asked for.
        language: English name of the language; several, in the order in which they were first heard, joined by commas.
            Empty when there was no speech. Each segment has its own; ``main_language`` is that of most of the speech.
        raw: The model's whole answer, as it came, one line for each segment.
        recognized: The text as the model wrote it, without the language and runaway repetitions.
        converted: ``recognized`` in the wanted script; None when no script was asked for.
        normalized: The text after inverse text normalization; None when it was not asked for.
        segments: The pieces that the audio was cut into.
        tokens: All tokens.
        timings: Times of all pieces together.
        finish: How the last segment ended, see ``Segment``; "error" when the audio after it could not be read.
        notes: What a reader should know about the audio, a sentence each: damage that was read over, missing ends.
    """

    text: str
    language: str
    raw: str
    recognized: str
    converted: str | None
    normalized: str | None
    segments: tuple[Segment, ...]
    tokens: tuple[Token, ...]
    timings: Timings
    finish: str | None
    notes: tuple[str, ...] = ()

    @property
    def main_language(self) -> str:
        """English name of the language of most of the speech, see ``main_language``; empty when there was none."""
        return main_language(self.segments)

    @property
    def words(self) -> tuple[Word, ...]:
        """The words of all segments; their offsets count in their segment's text."""
        return tuple(word for segment in self.segments for word in segment.words)

    def __str__(self) -> str:
        return self.text

    def to_dict(self) -> dict[str, Any]:
        """The transcript as plain dictionaries, lists, strings and numbers, ready for ``json.dumps``.

        The tokens stand once, under ``tokens``; ``tokens`` of a segment is how many of them are its own.
        """
        plain = asdict(self)
        plain["main_language"] = self.main_language
        for name in ("segments", "tokens", "notes"):
            plain[name] = list(plain[name])
        for segment in plain["segments"]:
            segment["tokens"], segment["words"] = len(segment["tokens"]), list(segment["words"])
            segment["marks"] = list(segment["marks"])
        return plain


def main_language(segments: Iterable[Segment]) -> str:
    """The language whose segments with text are the longest together, seconds; of equal ones the first; "" for none."""
    seconds: dict[str, float] = {}
    for segment in segments:
        if segment.language and segment.text:
            seconds[segment.language] = seconds.get(segment.language, 0.0) + segment.end - segment.start
    return max(seconds, key=lambda language: seconds[language], default="")
