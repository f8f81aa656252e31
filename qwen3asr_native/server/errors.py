"""Errors as OpenAI's API gives them: a status, and one sentence in a JSON object."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import (
    ArgumentError,
    AudioError,
    AudioTooLongError,
    ContextLengthError,
    ConversionError,
    LanguageError,
    ModelClosedError,
    OutOfMemoryError,
    Qwen3AsrError,
)

if TYPE_CHECKING:
    from collections.abc import Mapping


class ApiError(Exception):
    """An answer that is not a transcription.

    Args:
        status: Status of HTTP.
        message: One sentence: what is wrong, what to do.
        code: Word for programs.
        param: The field of the request that is wrong.
        headers: Further headers of the answer.
    """

    def __init__(
        self,
        status: int,
        message: str,
        code: str,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, message, code, param
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        """The object that clients read."""
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        if self.status == 429:
            kind = "rate_limit_error"
        return {
            "error": {
                "message": self.message,
                "type": kind,
                "param": self.param,
                "code": self.code,
            }
        }


#: Library error -> status, code, field. The first class that fits counts.
_OF_LIBRARY: tuple[tuple[type[Qwen3AsrError], int, str, str | None], ...] = (
    (AudioTooLongError, 413, "audio_too_long", "file"),
    (AudioError, 400, "invalid_audio", "file"),
    (LanguageError, 400, "unsupported_language", "language"),
    (ContextLengthError, 400, "context_length_exceeded", "prompt"),
    (ArgumentError, 400, "invalid_value", None),
    (ConversionError, 400, "invalid_value", "script"),
    (ModelClosedError, 503, "unavailable", None),
    (OutOfMemoryError, 503, "out_of_memory", None),
)


def of_library(error: Qwen3AsrError) -> ApiError:
    """The answer for an error of the library, with its sentence."""
    for kind, status, code, param in _OF_LIBRARY:
        if isinstance(error, kind):
            return ApiError(status, str(error), code, param)
    return ApiError(500, str(error), "engine_error")
