"""The multipart form of a transcription request: read within limits, and checked."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import anyio
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

from .errors import ApiError
from .settings import MEBIBYTE
from .work import Gone

if TYPE_CHECKING:
    from starlette.datastructures import FormData
    from starlette.types import Message

    from .settings import Settings

FORMATS = ("json", "text", "srt", "vtt", "verbose_json")
GRANULARITIES = ("segment", "word")
#: Fields of OpenAI's API that change nothing here; the answer names them in a header.
IGNORED = ("temperature", "chunking_strategy")
_KNOWN = frozenset(
    ("file", "model", "language", "prompt", "response_format", "stream", "script", "itn", "include", *IGNORED)
) | {"timestamp_granularities", "keywords", "languages"}
_TRUE, _FALSE = ("true", "1", "yes", "on"), ("false", "0", "no", "off", "")
_MOST_FIELDS = 200


@dataclass(frozen=True)
class Wish:
    """What a client wants to have done.

    Attributes:
        file: The upload.
        language, context, script, itn: As for ``Model.transcribe``.
        form: One of ``FORMATS``.
        segments, words: Whether their times are wanted.
        logprobs: Whether the tokens' probabilities are wanted.
        stream: Whether the answer is a stream of events.
        ignored: Names of fields that changed nothing.
    """

    file: NamedFile
    language: str | None
    context: str
    script: str | None
    itn: bool
    form: str
    segments: bool
    words: bool
    logprobs: bool
    stream: bool
    ignored: tuple[str, ...]


class NamedFile(io.BufferedIOBase):
    """The uploaded file under the name that the client gave it, so that sentences can say it."""

    def __init__(self, upload: UploadFile) -> None:
        self._file = upload.file
        self.name: str = (upload.filename or "file")[:200]
        self.size = upload.size or 0

    def release(self) -> None:
        """Removes it."""
        self._file.close()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def read(self, size: int | None = -1) -> bytes:
        content: bytes = self._file.read(-1 if size is None else size)
        return content

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._file.seek(offset, whence)
        return self.tell()

    def tell(self) -> int:
        position: int = self._file.tell()
        return position


async def read_form(request: Request, settings: Settings) -> FormData:
    """Reads the form; files of some size go to the disk.

    Raises:
        ApiError: It is too large, too slow, not a form, or the disk is full.
        Gone: The client left.
    """
    limit = settings.max_upload
    told = request.headers.get("content-length", "")
    if told.isdigit() and int(told) > limit:
        raise _too_large(limit)
    if "multipart/form-data" not in request.headers.get("content-type", ""):
        raise ApiError(
            400, "send the request as multipart/form-data with the audio in the field 'file'", "bad_form"
        )
    received = 0

    async def counted() -> Message:
        nonlocal received
        message = await request.receive()
        received += len(message.get("body", b""))
        if received > limit:
            raise _too_large(limit)
        return message

    try:
        with anyio.fail_after(settings.upload_limit):
            return await Request(request.scope, counted).form(max_files=2, max_fields=_MOST_FIELDS)
    except ClientDisconnect:
        raise Gone from None
    except TimeoutError:
        message = (
            f"the upload took longer than {settings.upload_limit:g} s; send less, or over a faster connection"
        )
        raise ApiError(408, message, "upload_too_slow") from None
    except HTTPException as error:
        raise ApiError(400, f"the form cannot be read: {str(error.detail).rstrip('.')}", "bad_form") from None
    except OSError as error:
        message = f"the upload cannot be stored ({error.strerror or error}); the server's disk may be full"
        raise ApiError(507, message, "storage_full") from None


def _too_large(limit: int) -> ApiError:
    message = f"the request is larger than {limit / MEBIBYTE:g} MB; compress the audio (FLAC, Ogg, MP3) or send it in parts"
    return ApiError(413, message, "file_too_large", "file")


def parse(form: FormData, names: list[str]) -> Wish:
    """Checks the fields. ``names`` are those of the model. Raises ApiError."""
    values = _texts(form)
    file = form.get("file")
    if not isinstance(file, UploadFile):
        raise ApiError(400, "the field 'file' with the audio is missing", "missing_field", "file")
    check_model(values.get("model", [""])[-1], names)
    form_of_answer = _choice(values, "response_format", FORMATS, "json")
    granularities = {
        _one_of("timestamp_granularities", value, GRANULARITIES)
        for value in values.get("timestamp_granularities", [])
    }
    if granularities and form_of_answer != "verbose_json":
        message = "timestamp_granularities need response_format=verbose_json"
        raise ApiError(400, message, "invalid_value", "timestamp_granularities")
    include = {_one_of("include", value, ("logprobs",)) for value in values.get("include", [])}
    stream = _flag(values, "stream")
    if stream and form_of_answer not in ("json", "verbose_json"):
        message = (
            f"stream=true gives events, not {form_of_answer}; leave response_format out or take verbose_json"
        )
        raise ApiError(400, message, "invalid_value", "stream")
    keywords = [word for word in values.get("keywords", []) if word]
    languages = values.get("languages", [])
    language = values.get("language", languages if len(languages) == 1 else [""])[-1]
    unknown = sorted(name for name in values if name not in _KNOWN)
    return Wish(
        file=NamedFile(file),
        language=language.strip() or None,
        context=" ".join([values.get("prompt", [""])[-1], *keywords]).strip(),
        script=values.get("script", [""])[-1].strip() or None,
        itn=_flag(values, "itn"),
        form=form_of_answer,
        segments=not granularities or "segment" in granularities,
        words="word" in granularities,
        logprobs="logprobs" in include,
        stream=stream,
        ignored=(*(name for name in IGNORED if _means_something(name, values)), *unknown),
    )


def check_model(name: str, names: list[str]) -> None:
    """Raises ApiError when a client asks for a model that is not here; no name is any model."""
    if name and name not in names:
        message = f"there is no model {name!r} here; this server has {', '.join(names)}"
        raise ApiError(404, message, "model_not_found", "model")


def _texts(form: FormData) -> dict[str, list[str]]:
    """Text fields; 'name[]' is 'name', and so is 'name[part]'."""
    values: dict[str, list[str]] = {}
    for name, value in form.multi_items():
        if isinstance(value, str):
            values.setdefault(name.partition("[")[0], []).append(value)
        elif name != "file":
            raise ApiError(
                400, f"the field {name[:50]!r} is a file; only 'file' may be one", "invalid_value", name[:50]
            )
    return values


def _means_something(name: str, values: dict[str, list[str]]) -> bool:
    """Whether a field that is ignored asks for something other than what happens anyway."""
    given = values.get(name, [])
    if name == "temperature" and given:
        try:
            temperature = float(given[-1])
        except ValueError:
            temperature = -1.0
        if not 0.0 <= temperature <= 1.0:
            raise ApiError(
                400, f"temperature must be from 0 to 1, not {given[-1][:50]!r}", "invalid_value", name
            )
        return temperature != 0.0
    return any(value not in ("", "auto") for value in given)


def _choice(values: dict[str, list[str]], name: str, allowed: tuple[str, ...], default: str) -> str:
    return _one_of(name, values.get(name, [default])[-1] or default, allowed)


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        message = f"{name} must be one of {', '.join(allowed)}, not {value[:50]!r}"
        raise ApiError(400, message, "invalid_value", name)
    return value


def _flag(values: dict[str, list[str]], name: str) -> bool:
    given: Any = values.get(name, [""])[-1]
    word = given.strip().lower()
    if word not in _TRUE + _FALSE:
        raise ApiError(400, f"{name} must be true or false, not {given[:50]!r}", "invalid_value", name)
    return word in _TRUE
