"""What can go wrong. Every error carries one sentence: what it is about, what was found, what to do."""

from __future__ import annotations


class Qwen3AsrError(Exception):
    """Base of all errors of this package. Its sentence can be printed and sent anywhere: what is no Unicode in a name
    that it quotes is written as an escape."""

    def __init__(self, *sentences: object) -> None:
        super().__init__(*(_printable(item) if isinstance(item, str) else item for item in sentences))


def _printable(sentence: str) -> str:
    return sentence.encode("utf-8", "backslashreplace").decode("utf-8")


class ModelFileError(Qwen3AsrError):
    """The model is missing, truncated, not a GGMM file, or of a kind that the engine does not know."""


class AudioError(Qwen3AsrError, ValueError):
    """The audio is missing, empty, unreadable, or holds values that are not numbers."""


class AudioTooLongError(AudioError):
    """The audio is longer than the caller allows."""


class LanguageError(Qwen3AsrError, ValueError):
    """The model does not know the language."""


class ArgumentError(Qwen3AsrError, ValueError):
    """An option has a value that it cannot have."""


class ModelClosedError(Qwen3AsrError):
    """The model was closed; ``reinit()`` opens it again."""


class ModelBusyError(Qwen3AsrError):
    """The calling thread already has an unfinished stream on the model."""


class ForkedError(Qwen3AsrError):
    """The process was forked after the model was loaded; the engine's threads exist in the parent only."""


class ContextLengthError(Qwen3AsrError):
    """Audio and context together are longer than the model's context."""


class OutOfMemoryError(Qwen3AsrError, MemoryError):
    """The engine found no memory."""


class LibraryError(Qwen3AsrError):
    """A library given as ``library=`` cannot be loaded, or lacks what was asked of it."""


class ConversionError(Qwen3AsrError):
    """A text could not be converted to the wanted script, or a checkpoint to a model file."""


class DownloadError(Qwen3AsrError):
    """A model could not be downloaded, or what arrived is not it."""


class EngineError(Qwen3AsrError):
    """The engine failed for a reason without a class of its own."""


# enum chatllm_asr_status of libchatllm_asr.h
_OF_STATUS: dict[int, type[Qwen3AsrError]] = {
    -2: ArgumentError,
    -3: ModelFileError,
    -4: AudioError,
    -5: OutOfMemoryError,
    -6: ModelBusyError,
    -7: ModelClosedError,
    -8: ContextLengthError,
    -9: ForkedError,
}


def error_of_status(status: int, message: str) -> Qwen3AsrError:
    """The exception for a status of the C API and the sentence that came with it."""
    return _OF_STATUS.get(status, EngineError)(message or f"the engine failed with status {status}")
