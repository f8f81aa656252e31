"""Qwen3-ASR speech recognition on a CPU, inside the Python process.

>>> import qwen3asr_native
>>> with qwen3asr_native.Model() as model:
...     print(model.transcribe("samples/phone-number-zh-TW.wav").text)
"""

from __future__ import annotations

from . import _moved
from .engine import engine_version, inspect_model, kernel_sets
from .errors import (
    ArgumentError,
    AudioError,
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
from .model import Model
from .stream import Stream
from .transcript import Segment, Timings, Token, Transcript

__version__ = "0.1.0"

_moved.install()

__all__ = [
    "ArgumentError",
    "AudioError",
    "ContextLengthError",
    "ConversionError",
    "DownloadError",
    "EngineError",
    "ForkedError",
    "LanguageError",
    "LibraryError",
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
    "__version__",
    "engine_version",
    "inspect_model",
    "kernel_sets",
]
