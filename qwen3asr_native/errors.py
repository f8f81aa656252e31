"""Errors of the package: each message says what is wrong, in which file, and what to do about it."""

from __future__ import annotations


class Qwen3AsrError(Exception):
    """Base class of every error this package raises on purpose."""


class ModelFileError(Qwen3AsrError):
    """A model file is missing, truncated or not what it claims to be."""


class ConversionError(Qwen3AsrError):
    """A checkpoint cannot be converted, or the converted file cannot be written."""
