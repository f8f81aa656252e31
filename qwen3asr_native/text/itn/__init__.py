"""Inverse text normalization of Chinese: numbers written as people write them.

``一萬兩千三百四十五元`` becomes ``12345元``; Traditional and Simplified script alike. What is not a number stays.
Number words of other languages are out of scope.
"""

from __future__ import annotations

from typing import NamedTuple

from .grammar import parse
from .numbers import Source
from .tokens import tokenize

__all__ = ["Normalized", "Span", "normalize", "normalize_with_offsets"]


class Span(NamedTuple):
    """``text[start:stop]`` of the result was ``source[source_start:source_stop]``."""

    start: int
    stop: int
    source_start: int
    source_stop: int
    changed: bool


class Normalized(NamedTuple):
    """A normalized text and where its parts come from.

    The spans cover result and source from beginning to end in order, without gaps. A changed span is one number,
    or a unit written as a symbol.
    """

    text: str
    spans: list[Span]

    def source_range(self, start: int, stop: int) -> tuple[int, int]:
        """The part of the source that ``text[start:stop]`` comes from; a number counts as a whole.

        Raises:
            ValueError: the range is empty or not inside the text.
        """
        if not 0 <= start < stop <= len(self.text):
            raise ValueError(f"no text at [{start}:{stop}] in a text of {len(self.text)} characters")
        touched = [span for span in self.spans if span.start < stop and start < span.stop]
        return _source_position(touched[0], start, False), _source_position(touched[-1], stop, True)


def _source_position(span: Span, position: int, is_stop: bool) -> int:
    if not span.changed:
        return span.source_start + position - span.start
    return span.source_stop if is_stop else span.source_start


def normalize(text: str) -> str:
    """Write the numbers of ``text`` with Arabic digits. Idempotent; time is linear in the text's length."""
    return normalize_with_offsets(text).text


def normalize_with_offsets(text: str) -> Normalized:
    """As `normalize`, with the places that the parts of the result have in ``text``."""
    tokens = tokenize(text)
    pieces: list[str] = []
    spans: list[Span] = []
    length = 0

    def add(piece: str, source_start: int, source_stop: int, changed: bool) -> None:
        nonlocal length
        if source_start < source_stop:
            pieces.append(piece)
            spans.append(Span(length, length + len(piece), source_start, source_stop, changed))
            length += len(piece)

    position = 0
    for edit in parse(Source(tokens)):
        start, stop = tokens[edit.start].start, tokens[edit.stop].start
        add(text[position:start], position, start, False)
        add(edit.text, start, stop, True)
        position = stop
    add(text[position:], position, len(text), False)
    return Normalized("".join(pieces), spans)
