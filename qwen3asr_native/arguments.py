"""What users pass to the public functions -> plain Python values, or an ArgumentError that says what is wrong.

Pure functions of one argument each, so that every door of the package says the same about the same mistake.
"""

from __future__ import annotations

import errno
import functools
import math
import operator
import os
from collections.abc import Collection, Iterable
from typing import Any, TypeVar

from .errors import ArgumentError

_BAD_NAMES = (errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL)

_SHOWN = 60
_T = TypeVar("_T")
_MOST_TOKENS = (1 << 31) - 1


def text(value: object, name: str) -> str:
    """A text; None is the empty one. Raises ArgumentError: no str, a zero character, a lone surrogate."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise _wrong(name, "a text", value)
    if "\0" in value:
        raise ArgumentError(f"{name} must not hold zero characters")
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise ArgumentError(
            f"{name} must not hold lone surrogates, which stand for bytes that are not UTF-8: {_shown(value)}"
        )
    return str(value)


def context(value: object) -> str:
    """The text that helps recognition; a list of names or terms is joined by commas, None is none."""
    if isinstance(value, (list, tuple, set, frozenset)):
        # A set has no order of its own, and equal calls should ask the model the same.
        words = sorted(value, key=str) if isinstance(value, (set, frozenset)) else value
        return ", ".join(filter(None, (text(word, "each word of the context").strip() for word in words)))
    if value is not None and not isinstance(value, str):
        raise _wrong("context", "a text or a list of words", value)
    return text(value, "the context")


def language(value: object) -> str | None:
    """The name or code of one language; None detects it."""
    if isinstance(value, (list, tuple, set, frozenset)):
        raise ArgumentError(
            f"language must be the name of one language, or None to detect it, not {_shown(value)}"
        )
    return optional_text(value, "language")


def optional_text(value: object, name: str) -> str | None:
    """A text, or None."""
    return None if value is None else text(value, name)


def whole(value: object, name: str, least: int = 1, most: int = _MOST_TOKENS) -> int:
    """A whole number of any integer type, NumPy's too, in [least, most]."""
    try:
        if _is_truth(value):
            raise TypeError
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise _wrong(name, "a whole number", value) from None
    if not least <= number <= most:
        limits = f"at least {least}" if most == _MOST_TOKENS else f"from {least} to {most}"
        raise ArgumentError(f"{name} must be a whole number {_of(limits)}, not {_shown(number)}")
    return number


def optional_whole(value: object, name: str, least: int = 1, most: int = _MOST_TOKENS) -> int | None:
    """A whole number, or None."""
    return None if value is None else whole(value, name, least, most)


def number(value: object, name: str, least: float, most: float) -> float:
    """A finite number of any real type, NumPy's too, in [least, most]."""
    if _is_truth(value) or isinstance(value, (str, bytes)) or not hasattr(value, "__float__"):
        raise _wrong(name, "a number", value)
    try:
        converted = float(value)
    except (TypeError, ValueError, OverflowError):
        raise _wrong(name, "a number", value) from None
    if math.isnan(converted) or not least <= converted <= most:
        raise ArgumentError(f"{name} must be from {least:g} to {most:g}, not {_shown(value)}")
    return converted


def truth(value: object, name: str) -> bool:
    """True or False; NumPy's too. A text such as "no" would be true without a word."""
    if not _is_truth(value):
        raise _wrong(name, "True or False", value)
    return bool(value)


def choice(value: object, name: str, choices: Collection[str]) -> str:
    """One of several names."""
    if not isinstance(value, str) or value not in choices:
        *others, last = (repr(item) for item in choices)
        known = f"{', '.join(others)} or {last}" if others else last
        raise ArgumentError(f"{name} must be {known}, not {_shown(value)}")
    return str(value)


def path(value: object, name: str) -> str:
    """A path as a text. Raises ArgumentError: another type, a zero character, what the file system cannot name."""
    if not isinstance(value, (str, os.PathLike)):
        raise _wrong(name, "a path (str or os.PathLike)", value)
    plain = os.fspath(value)
    if isinstance(plain, bytes):
        plain = os.fsdecode(plain)
    if not plain:
        raise ArgumentError(f"{name} is empty; give a path")
    if "\0" in plain:
        raise ArgumentError(f"{name} must not hold zero characters: {_shown(plain)}")
    try:
        os.stat(plain)
    except UnicodeEncodeError:
        raise ArgumentError(f"{name} holds characters that no file name can hold: {_shown(plain)}") from None
    except ValueError as error:
        raise ArgumentError(f"{name} is no path: {error}") from None
    except OSError as error:
        if error.errno in _BAD_NAMES:
            raise ArgumentError(f"{name} is no path: {error.strerror}: {_shown(plain)}") from None
    return plain


def audios(value: Iterable[_T]) -> Iterable[_T]:
    """Several audios; one of them would be taken to pieces: a path into letters, a file into lines, an array into rows."""
    one = isinstance(value, (str, bytes, bytearray, memoryview, os.PathLike)) or hasattr(value, "read")
    if one or hasattr(value, "dtype"):
        raise ArgumentError(f"audios must be a list of audios; give [audio] for one, not {_shown(value)}")
    if not isinstance(value, Iterable):
        raise _wrong("audios", "a list of audios", value)
    return value


def threads(value: object) -> int | None:
    """Threads to compute with; None leaves it to the engine."""
    return optional_whole(value, "threads", 1, 4096)


@functools.lru_cache(maxsize=1)
def processors() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _is_truth(value: object) -> bool:
    return isinstance(value, bool) or type(value).__name__ in ("bool", "bool_")


def _wrong(name: str, wanted: str, value: object) -> ArgumentError:
    return ArgumentError(f"{name} must be {wanted}, not {_shown(value)} ({type(value).__name__})")


def _of(limits: str) -> str:
    return f"of {limits}" if limits.startswith("at least") else limits


def _shown(value: Any) -> str:
    try:
        shown = repr(value)
    except Exception:
        shown = f"<{type(value).__name__}>"
    return shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}..."
