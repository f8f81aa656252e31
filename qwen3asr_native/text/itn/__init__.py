"""Inverse text normalization of Chinese: numbers written as people write them.

``一萬兩千三百四十五元`` becomes ``12345元``; Traditional and Simplified script alike. What is not a number stays.
Number words of other languages are out of scope.
"""

from __future__ import annotations

from ..offsets import Derived, Rewriting, Span
from .grammar import parse
from .numbers import Source
from .tokens import tokenize

__all__ = ["Normalized", "Span", "normalize", "normalize_with_offsets"]


Normalized = Derived  # a changed span is one number, or a unit written as a symbol


def normalize(text: str, simplified: bool = False) -> str:
    """Write the numbers of ``text`` with Arabic digits. Idempotent; time is linear in the text's length.

    Args:
        text: Any text.
        simplified: Whether it goes on a text in the simplified script.
    """
    return normalize_with_offsets(text, simplified).text


def normalize_with_offsets(text: str, simplified: bool = False) -> Normalized:
    """As `normalize`, with the places that the parts of the result have in ``text``."""
    tokens = tokenize(text)
    result = Rewriting()
    position = 0
    for edit in parse(Source(tokens, simplified)):
        start, stop = tokens[edit.start].start, tokens[edit.stop].start
        result.add(text[position:start], position, start, False)
        result.add(edit.text, start, stop, True)
        position = stop
    result.add(text[position:], position, len(text), False)
    return result.done()
