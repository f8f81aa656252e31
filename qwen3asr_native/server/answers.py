"""A transcript in the forms of OpenAI's API."""

from __future__ import annotations

import json
import zlib
from typing import TYPE_CHECKING, Any

from .. import subtitles

if TYPE_CHECKING:
    from ..transcript import Segment, Token, Transcript
    from .form import Wish

MEDIA_TYPES = {"text": "text/plain", "srt": "application/x-subrip", "vtt": "text/vtt"}


def text_form(transcript: Transcript, form: str) -> str:
    """The transcript as "text", "srt" or "vtt"."""
    if form == "text":
        return transcript.text + "\n"
    return subtitles.write(transcript, form)


def json_form(transcript: Transcript, wish: Wish, seconds: float) -> dict[str, Any]:
    """The transcript as "json" or "verbose_json". ``seconds`` is the length of the audio."""
    plain: dict[str, Any] = {"text": transcript.text}
    if wish.form == "verbose_json":
        plain |= {
            "task": "transcribe",
            "language": transcript.language.lower(),
            "duration": round(seconds, 3),
        }
        if wish.segments:
            plain["segments"] = [segment_form(i, part) for i, part in enumerate(transcript.segments)]
        if wish.words:
            plain["words"] = [
                {"word": word.text, "start": round(word.start, 3), "end": round(word.end, 3)}
                for part in transcript.segments
                for word in part.words
            ]
    if wish.logprobs:
        plain["logprobs"] = [logprob_form(token) for token in transcript.tokens if token.logprob is not None]
    plain["usage"] = {"type": "duration", "seconds": round(seconds, 3)}
    return plain


def segment_form(index: int, segment: Segment) -> dict[str, Any]:
    """A segment with the fields of Whisper's; the model tells nothing about ``no_speech_prob`` but whether it heard speech."""
    spoken = segment.text.encode()
    logprobs = [token.logprob for token in segment.tokens if token.logprob is not None]
    return {
        "id": index,
        "seek": round(100 * segment.start),
        "start": round(segment.start, 3),
        "end": round(segment.end, 3),
        "text": segment.text,
        "tokens": [token.id for token in segment.tokens if token.id is not None and not token.special],
        "temperature": 0.0,
        "avg_logprob": sum(logprobs) / len(logprobs) if logprobs else None,
        "compression_ratio": round(len(spoken) / len(zlib.compress(spoken)), 3) if spoken else 0.0,
        "no_speech_prob": 0.0 if segment.language else 1.0,
        "language": segment.language.lower(),
        "finish": segment.finish,
    }


def logprob_form(token: Token) -> dict[str, Any]:
    """A token with its probability."""
    return {"token": token.text, "logprob": token.logprob, "bytes": list(token.text.encode())}


def event(kind: str, **fields: Any) -> str:
    """A server-sent event with an object that has a type."""
    return f"data: {json.dumps({'type': kind, **fields}, ensure_ascii=False)}\n\n"


def error_event(body: dict[str, Any]) -> str:
    """A server-sent event by which OpenAI's clients raise an error."""
    return f"data: {json.dumps(body, ensure_ascii=False)}\n\n"


def usage(transcript: Transcript) -> dict[str, Any] | None:
    """The count of tokens; None where the library does not tell."""
    timings = transcript.timings
    if timings.prompt_tokens is None or timings.audio_tokens is None:
        return None
    return {
        "type": "tokens",
        "input_tokens": timings.prompt_tokens,
        "input_token_details": {
            "audio_tokens": timings.audio_tokens,
            "text_tokens": timings.prompt_tokens - timings.audio_tokens,
        },
        "output_tokens": timings.new_tokens,
        "total_tokens": timings.prompt_tokens + timings.new_tokens,
    }
