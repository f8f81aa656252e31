"""Recognized text as it is to be written: script conversion, then inverse text normalization."""

from __future__ import annotations

from . import is_chinese
from .offsets import Derived, unchanged


def written(text: str, language: str | None, *, script: str | None = None, itn: bool = False) -> Derived:
    """``text`` in the wanted script and with numbers as digits, and where each part of it comes from.

    Args:
        text: what was recognized.
        language: its language; both steps apply to Chinese only.
        script: see `script.ScriptConverter`; None keeps the script.
        itn: whether numbers are written as digits.

    Raises:
        ValueError: there is no such script.
        ConversionError: the dictionaries of the script are not there.
    """
    result = unchanged(text)
    if not is_chinese(language):
        return result
    if script is not None:
        from .script import ScriptConverter

        result = ScriptConverter(script).convert_with_offsets(text)
    if itn:
        from .itn import normalize_with_offsets

        result = normalize_with_offsets(result.text).after(result)
    return result
