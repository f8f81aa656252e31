"""Qwen3-ASR speech recognition on a CPU, inside the Python process.

>>> import qwen3asr_native
>>> with qwen3asr_native.Model() as model:
...     print(model.transcribe("samples/phone-number-zh-TW.wav").text)

The names below are imported when they are first used, so that ``import qwen3asr_native`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from . import _moved

if TYPE_CHECKING:
    from .aligner import Aligner
    from .engine import engine_version, inspect_model, kernel_sets
    from .errors import (
        ArgumentError,
        AudioError,
        AudioTooLongError,
        ContextLengthError,
        ConversionError,
        DownloadError,
        EngineError,
        ForkedError,
        LanguageError,
        LibraryError,
        ModelBusyError,
        ModelClosedError,
        ModelFileError,
        OutOfMemoryError,
        Qwen3AsrError,
    )
    from .live import Live, Update
    from .model import Model
    from .stream import Stream
    from .transcript import Segment, Timings, Token, Transcript, Word

__version__ = "0.1.0"


def _refuse_subinterpreters() -> None:
    """NumPy refuses only those with a lock of their own; in the others it warns and goes wrong later."""
    for name in ("_interpreters", "_xxsubinterpreters"):  # since and before Python 3.13
        try:
            interpreters = importlib.import_module(name)
        except ImportError:
            continue
        if interpreters.get_current() != interpreters.get_main():
            raise ImportError(
                "qwen3asr_native does not work in a subinterpreter, as NumPy does not: use threads, which can share "
                "one Model, or processes"
            )
        return


_refuse_subinterpreters()
_moved.install()

__all__ = [
    "Aligner",
    "ArgumentError",
    "AudioError",
    "AudioTooLongError",
    "ContextLengthError",
    "ConversionError",
    "DownloadError",
    "EngineError",
    "ForkedError",
    "LanguageError",
    "LibraryError",
    "Live",
    "Model",
    "ModelBusyError",
    "ModelClosedError",
    "ModelFileError",
    "OutOfMemoryError",
    "Qwen3AsrError",
    "Segment",
    "Stream",
    "Timings",
    "Token",
    "Transcript",
    "Update",
    "Word",
    "__version__",
    "engine_version",
    "inspect_model",
    "kernel_sets",
]

# Module -> its names above. Every name of __all__ is in one of them.
_HOMES = {
    "aligner": ("Aligner",),
    "engine": ("engine_version", "inspect_model", "kernel_sets"),
    "live": ("Live", "Update"),
    "model": ("Model",),
    "stream": ("Stream",),
    "transcript": ("Segment", "Timings", "Token", "Transcript", "Word"),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}
# These can be reached as attributes without an import of their own.
_MODULES = ("audio", "engine", "errors", "files", "live", "model", "stream", "text", "transcript")


def _load(module: str) -> Any:
    try:
        return importlib.import_module(f".{module}", __name__)
    except ModuleNotFoundError as error:
        if error.name != f"{__name__}._native":
            raise
        raise ImportError(
            f"'{__path__[0]}' holds sources whose engine is not compiled, and Python finds them before the package that is "
            "installed: start it in another folder, or compile them there with pip install -e ."
        ) from None


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return _load(name)
    home = _HOME_OF.get(name, "errors" if name in __all__ else None)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(_load(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_MODULES})
