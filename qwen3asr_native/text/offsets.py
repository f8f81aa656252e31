"""Where the parts of a rewritten text come from, through any number of steps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from ..transcript import Word


class Span(NamedTuple):
    """``text[start:stop]`` of the result was ``source[source_start:source_stop]``."""

    start: int
    stop: int
    source_start: int
    source_stop: int
    changed: bool


class Derived(NamedTuple):
    """A text made from another one, and where its parts come from.

    The spans cover result and source from beginning to end in order, without gaps. A changed span counts as a whole: it is
    one number, a unit written as a symbol, or a word in another script. An unchanged one is the same in both texts.
    """

    text: str
    spans: list[Span]

    def source_range(self, start: int, stop: int) -> tuple[int, int]:
        """The part of the source that ``text[start:stop]`` comes from; a changed span counts as a whole.

        Raises:
            ValueError: the range is empty or not inside the text.
        """
        if not 0 <= start < stop <= len(self.text):
            raise ValueError(f"no text at [{start}:{stop}] in a text of {len(self.text)} characters")
        touched = [span for span in self.spans if span.start < stop and start < span.stop]
        return _source_position(touched[0], start, False), _source_position(touched[-1], stop, True)

    def result_range(self, start: int, stop: int) -> tuple[int, int]:
        """The part of the result that ``source[start:stop]`` has become; the inverse of `source_range`.

        Raises:
            ValueError: the range is empty or not inside the source.
        """
        return self.inverted(stop).source_range(start, stop)

    def inverted(self, length: int = 0) -> Derived:
        """The way back: results and sources change places. ``text`` then is a stand-in of the source's length."""
        length = max(length, self.spans[-1].source_stop if self.spans else 0)
        turned = [Span(s.source_start, s.source_stop, s.start, s.stop, s.changed) for s in self.spans]
        return Derived("\0" * length, turned)

    def after(self, earlier: Derived) -> Derived:
        """This step behind ``earlier``, whose text is the source of this one: from the first source to this text."""
        if not earlier.text:
            length = earlier.spans[-1].source_stop if earlier.spans else 0
            whole = Span(0, len(self.text), 0, length, True)
            return Derived(self.text, [whole] if self.text or length else [])
        spans: list[Span] = []
        start = source_start = first = second = 0
        crossed = False  # a changed span of one step reaches into one of the other: both count as one
        places = {span.stop for span in earlier.spans} | {span.source_stop for span in self.spans}
        for place in sorted(places):
            while earlier.spans[first].stop < place:
                first += 1
            while self.spans[second].source_stop < place:
                second += 1
            a, b = earlier.spans[first], self.spans[second]
            if (a.changed and place < a.stop) or (b.changed and place < b.source_stop):
                crossed = True
                continue
            stop, source_stop = b.stop - (b.source_stop - place), a.source_stop - (a.stop - place)
            spans.append(Span(start, stop, source_start, source_stop, crossed or a.changed or b.changed))
            start, source_start, crossed = stop, source_stop, False
        return Derived(self.text, spans)


def _source_position(span: Span, position: int, is_stop: bool) -> int:
    if not span.changed:
        return span.source_start + position - span.start
    return span.source_stop if is_stop else span.source_start


class Rewriting:
    """Collects a `Derived` from left to right."""

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._spans: list[Span] = []
        self._length = 0

    def add(self, piece: str, source_start: int, source_stop: int, changed: bool) -> None:
        """The next part of the result, which stands for ``source[source_start:source_stop]``.

        A part that has gone, or has come from nowhere, belongs to the part before it.
        """
        if not piece and source_start == source_stop:
            return
        start, self._length = self._length, self._length + len(piece)
        self._pieces.append(piece)
        span = Span(start, self._length, source_start, source_stop, changed)
        if self._spans and (_is_empty(self._spans[-1]) or _is_empty(span)):
            before = self._spans.pop()
            span = Span(before.start, span.stop, before.source_start, span.source_stop, True)
        self._spans.append(span)

    def add_changed(self, piece: str, source: str, start: int, stop: int) -> None:
        """As `add`; whether it is a change is seen from the source."""
        self.add(piece, start, stop, piece != source[start:stop])

    def done(self) -> Derived:
        """What was added."""
        return Derived("".join(self._pieces), self._spans)


def _is_empty(span: Span) -> bool:
    return span.start == span.stop or span.source_start == span.source_stop


def unchanged(text: str) -> Derived:
    """The step that changes nothing."""
    return Derived(text, [Span(0, len(text), 0, len(text), False)] if text else [])


def carried(words: Iterable[Word], derived: Derived) -> list[Word]:
    """Words with times of the source as words of ``derived.text``, with the same times.

    Words that have become one, as the four digits of 零九零零 -> 0900, are one word: from the begin of the first to the end
    of the last. Text that no word stands for, such as punctuation, stays without.
    """
    back = derived.inverted()
    made: list[Word] = []
    for word in words:
        if not 0 <= word.offset < word.end_offset <= len(back.text) or not derived.text:
            continue
        start, stop = back.source_range(word.offset, word.end_offset)
        begin = word.start
        if made and start < made[-1].end_offset:
            before = made.pop()
            start, stop, begin = before.offset, max(stop, before.end_offset), before.start
        made.append(
            replace(
                word, text=derived.text[start:stop], start=begin, end=word.end, offset=start, end_offset=stop
            )
        )
    return made


def composed(steps: Sequence[Derived]) -> Derived:
    """All steps in their order as one."""
    result = steps[0]
    for step in steps[1:]:
        result = step.after(result)
    return result
