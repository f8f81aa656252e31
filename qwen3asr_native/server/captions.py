"""POST /v1/subtitles: segments with times -> SRT or VTT, by the rules of ``subtitles``; the page's downloads."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from starlette.responses import Response

from .. import subtitles
from ..transcript import Segment, Timings, Word
from .answers import MEDIA_TYPES
from .errors import ApiError

if TYPE_CHECKING:
    from starlette.requests import Request

_MOST_BYTES = 8 << 20
_FORMATS = ("srt", "vtt")


async def captions(request: Request) -> Response:
    """Answers with the subtitles of ``{"segments": [{"start", "end", "text", "words"?}]}``; ``?format=srt`` or vtt."""
    form = request.query_params.get("format", "srt")
    if form not in _FORMATS:
        raise ApiError(
            400, f"format must be one of {', '.join(_FORMATS)}, not {form[:50]!r}", "invalid_value", "format"
        )
    content = bytearray()
    async for part in request.stream():
        content += part
        if len(content) > _MOST_BYTES:
            raise ApiError(413, f"the segments are more than {_MOST_BYTES >> 20} MB", "too_large", "segments")
    try:
        given = json.loads(bytes(content))["segments"]
        segments = [_segment(part) for part in given]
    except (ValueError, TypeError, KeyError, RecursionError):
        message = 'send JSON with "segments", each with "start" and "end" in seconds and a "text"'
        raise ApiError(400, message, "invalid_value", "segments") from None
    return Response(subtitles.WRITERS[form](segments), media_type=MEDIA_TYPES[form])


def _segment(part: Any) -> Segment:
    text = part["text"]
    if not isinstance(text, str):
        raise TypeError
    words = tuple(Word(str(word["word"]), *_span(word)) for word in part.get("words", ()))
    start, end = _span(part)
    return Segment(start, end, text, str(part.get("language", "")), text, None, Timings(), words=words)


def _span(part: Any) -> tuple[float, float]:
    start, end = float(part["start"]), float(part["end"])
    if not (math.isfinite(start) and math.isfinite(end) and 0 <= start <= end < 1e9):
        raise ValueError
    return start, end
