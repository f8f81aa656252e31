"""What a transcription gives: its text in every form, its tokens, its times."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Token:
    """One token of the answer, in the order of its making.

    Attributes:
        text: What the token adds to the recognized text; whole characters only. Empty for the tokens that name the
            language and for one that ends inside a character. Script conversion may move text to a later token.
        id: Token id; None where the library does not tell.
        logprob: Natural logarithm of the token's probability; None where the library does not tell.
        time_ms: Milliseconds from the moment the engine got the audio to the choice of this token, on the engine's
            clock.
        time_ns: The same moment on CLOCK_MONOTONIC, comparable with ``time.monotonic_ns()`` on Linux.
        special: Whether it is a special token such as ``<asr_text>``.
    """

    text: str
    id: int | None
    logprob: float | None
    time_ms: float
    time_ns: int
    special: bool = False


@dataclass(frozen=True)
class Timings:
    """Times of a transcription in milliseconds, read on the engine's clock; None where the library does not tell.

    Attributes:
        load_ms: Loading of the model, once, not part of ``total_ms``.
        audio_ms: Length of the audio.
        mel_ms: Log-mel spectrogram.
        encode_ms: Audio encoder.
        prefill_ms: Decoder over the prompt.
        first_token_ms: From the moment the engine got the audio to the first token; None when there was none.
        decode_ms: All decode steps after the first token.
        per_token_ms: Mean of those steps; None with fewer than two tokens.
        total_ms: From the moment the engine got the audio to the end of the text.
        audio_tokens: Tokens that stand for the audio in the prompt.
        prompt_tokens: Tokens of the prompt, audio included.
        new_tokens: Tokens of the answer.
        threads: Threads that computed.
    """

    load_ms: float | None
    audio_ms: float
    mel_ms: float | None
    encode_ms: float | None
    prefill_ms: float | None
    first_token_ms: float | None
    decode_ms: float | None
    per_token_ms: float | None
    total_ms: float
    audio_tokens: int | None
    prompt_tokens: int | None
    new_tokens: int
    threads: int | None

    @property
    def real_time_factor(self) -> float:
        """Computing time over length of the audio; below 1 is faster than speech."""
        return self.total_ms / self.audio_ms if self.audio_ms else float("inf")


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
    """

    start: float
    end: float
    text: str
    language: str
    raw: str
    finish: str | None
    timings: Timings


@dataclass(frozen=True)
class Transcript:
    """A finished, or aborted, transcription.

    Attributes:
        text: The text after all steps that were asked for.
        language: English name of the language, several joined by commas; empty when there was no speech.
        raw: The model's whole answer, as it came, one line for each segment.
        recognized: The text as the model wrote it, without the language and runaway repetitions.
        converted: ``recognized`` in the wanted script; None when no script was asked for.
        normalized: The text after inverse text normalization; None when it was not asked for.
        segments: The pieces that the audio was cut into.
        tokens: All tokens.
        timings: Times of all pieces together.
        finish: How the last segment ended, see ``Segment``.
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

    def __str__(self) -> str:
        return self.text

    def to_dict(self) -> dict[str, Any]:
        """The transcript as plain dictionaries, lists, strings and numbers, ready for ``json.dumps``."""
        plain = asdict(self)
        plain["segments"] = list(plain["segments"])
        plain["tokens"] = list(plain["tokens"])
        return plain
