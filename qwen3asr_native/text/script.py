"""Chinese script conversion (OpenCC) that works while the text is still being made.

The meaning of a conversion is that of ``opencc-python-reimplemented``: with its dictionaries the result equals its
``OpenCC(config).convert``; see `dictionaries` for where they come from. That library wants the whole text and takes milliseconds per sentence;
`ScriptConverter` takes pieces of any size and returns at once what no later text can change.

How a conversion works. Text is cut at punctuation and white space. Each segment passes a chain of stages, each
stage a group of dictionaries. In a stage the dictionaries come in order, in a dictionary the longest key
anywhere in the segment first, equally long keys from left to right; a key takes its characters if no
key before it has taken one of them. So every possible match has a rank, and a match is chosen
when no match of a better rank that overlaps it is chosen.
"""

from __future__ import annotations

import os
import sys
from bisect import bisect_right
from collections.abc import Iterator
from functools import cache, lru_cache
from typing import NamedTuple, Optional

from . import dictionaries
from .dictionaries import Dictionaries, is_separator
from .offsets import Derived, Rewriting, unchanged

TAIWAN = "zh-TW"
ALIASES = {TAIWAN: "s2twp"}

_Characters = Optional[frozenset[str]]

# Ranks order the matches of a stage: dictionaries first, then longer keys. No key is this long.
_RANKS_PER_DICTIONARY = 1000

_LONGEST_REMEMBERED = 8  # characters
_REMEMBERED_WINDOWS = 16384


def available_variants() -> list[str]:
    """The names that `ScriptConverter` takes: "zh-TW" and the names of OpenCC's configurations."""
    return _variants(dictionaries.used())


def _variants(source: Dictionaries) -> list[str]:
    return sorted([*ALIASES, *source.variants()])


class ScriptConverter:
    """Converts Chinese text to another script or regional standard, whole or in pieces.

    The pieces returned by `feed` and the last one by `flush` add up to exactly what `convert` returns for
    the whole text. A character is held back only while a dictionary match that later text may complete
    could still change it; punctuation and white space release everything, and text in which no
    dictionary key starts (digits, nearly all English) passes at once. In a chain of stages a later stage knows
    the first character that an earlier one holds, not more, so that it may in rare cases wait one step longer.

    Bound: a match can only be in doubt through an overlapping one of a better rank. So a stage holds fewer
    characters than the sum of L * (L - 1) / 2 over its dictionaries, with L the length of the longest
    key: 120 + 45 in the two stages of s2twp. In real text fed character by character it is 0.5 on average.

    Args:
        variant: "zh-TW" (Taiwan's standard with its vocabulary, OpenCC's s2twp) or the name of an OpenCC
            configuration, see `available_variants`.
        source: whose dictionaries are used; None: those of `dictionaries.used`.

    Raises:
        ValueError: ``variant`` is not one of `available_variants`.
        ConversionError: there are no dictionaries, or they cannot be read.
    """

    def __init__(self, variant: str, source: Dictionaries | None = None) -> None:
        source = source or dictionaries.used()
        if variant not in _variants(source):
            names = ", ".join(_variants(source))
            raise ValueError(f"unknown script variant {variant!r}: choose one of {names}")
        self.variant = variant
        self._is_separator = _SEPARATORS
        self._stages = _load(ALIASES.get(variant, variant), source)
        self._streams = [_StageStream(stage) for stage in self._stages]

    def convert(self, text: str) -> str:
        """Convert a whole text; independent of what has been fed."""
        out: list[str] = []
        for start, stop, separates in self._segments(text):
            out.append(text[start:stop] if separates else self._convert_segment(text[start:stop]))
        return "".join(out)

    def convert_with_offsets(self, text: str) -> Derived:
        """As `convert`, with the places that the parts of the result have in ``text``.

        A word that changes counts as a whole: in 軟體 both characters come from both of 软件.
        """
        result = Rewriting()
        for start, stop, separates in self._segments(text):
            derived = unchanged(text[start:stop])
            for stage in () if separates else self._stages:
                derived = stage.convert_with_offsets(derived.text).after(derived)
            for span in derived.spans:
                piece = derived.text[span.start : span.stop]
                result.add(piece, start + span.source_start, start + span.source_stop, span.changed)
        return result.done()

    def _segments(self, text: str) -> Iterator[tuple[int, int, bool]]:
        """The parts of ``text`` and whether they are separators."""
        start = 0
        for position, char in enumerate(text):
            if self._is_separator[char]:
                if start < position:
                    yield start, position, False
                yield position, position + 1, True
                start = position + 1
        if start < len(text):
            yield start, len(text), False

    def _convert_segment(self, text: str) -> str:
        for stage in self._stages:
            text = stage.convert(text)
        return text

    def feed(self, piece: str) -> str:
        """Take the next piece of text; return all converted text that has become certain."""
        if not any(map(self._is_separator.__getitem__, piece)):
            return self._pass(piece) if piece else ""
        out: list[str] = []
        start = 0
        for position, char in enumerate(piece):
            if self._is_separator[char]:
                out += self._pass(piece[start:position]), self.flush(), char
                start = position + 1
        if start < len(piece):
            out.append(self._pass(piece[start:]))
        return "".join(out)

    def flush(self) -> str:
        """End of the text: return what was held back. The converter is then ready for another text."""
        text = ""
        for stream in self._streams:
            text = stream.finish(text)
        return text

    def _pass(self, text: str) -> str:
        upcoming = None
        for stream in self._streams:
            text, upcoming = stream.feed(text, upcoming)
        return text


class _Match(NamedTuple):
    """A key that stands in the window, or (``open``) keys of one rank that later text may complete.

    Matches sort by rank, equal ranks from left to right.
    """

    rank: int
    start: int
    stop: int
    value: str  # of an open match: what its values begin with
    open: bool
    values: tuple[str, ...]  # all values that it can take

    def overlaps(self, other: _Match) -> bool:
        return self.start < other.stop and other.start < self.stop

    def takes(self, position: int) -> bool:
        return self.start <= position < self.stop


class _Opening(NamedTuple):
    """Keys of one rank that begin with the same characters, and what they make of these."""

    rank: int
    agreed: str
    values: tuple[str, ...]


class _Outcome(NamedTuple):
    """What is certain about the conversion of a window, whatever text follows."""

    certain: str  # the beginning of its conversion
    decided: int  # how many characters of the window no match in doubt takes
    settled: int  # the length of their conversion
    following: _Characters  # one of these must follow ``certain``; None: any can


class _Stage:
    """One step of a conversion: dictionaries of which at most one match takes each character."""

    def __init__(self, dictionaries: list[dict[str, str]]) -> None:
        phrases, last = dictionaries[:-1], dictionaries[-1]
        # A last dictionary of single characters has the lowest ranks: it converts what no match has taken.
        single = all(len(key) == 1 for key in last)
        self._characters = str.maketrans(last) if single else {}
        if not single:
            phrases = dictionaries
        self._values: dict[str, str] = {}
        self._ranks: dict[str, int] = {}
        self._of_words: set[int] = set()  # the dictionaries that exchange words, not characters one by one
        for index, dictionary in enumerate(phrases, 1):
            if any(len(key) != len(value) for key, value in dictionary.items()):
                self._of_words.add(index)
            for key, value in dictionary.items():
                if key not in self._values:
                    self._values[key] = value
                    self._ranks[key] = index * _RANKS_PER_DICTIONARY - len(key)
        self._beginnings = {key[:length] for key in self._values for length in range(1, len(key))}
        self._first = {key[0] for key in self._values}
        self._sorted_keys = sorted(self._values)
        self._openings: dict[tuple[str, _Characters], list[_Opening]] = {}
        for first in self._first:
            self._openings_of(first, None)  # these have the most keys: better now than in a stream
        # The outcome depends on nothing but the window. Short windows come again, and their open ends always.
        self._remembered = lru_cache(maxsize=_REMEMBERED_WINDOWS)(self._split_window)
        self._remembered_ends = lru_cache(maxsize=_REMEMBERED_WINDOWS)(self._decide_window)

    def convert_characters(self, text: str) -> str | None:
        """The conversion of ``text`` if no key of several characters begins in it, whatever follows; else None."""
        return text.translate(self._characters) if self._first.isdisjoint(text) else None

    def outcome(self, window: str, upcoming: _Characters) -> _Outcome:
        """What is certain if ``window`` goes on with any text, or with one of ``upcoming``."""
        decide = self._remembered if len(window) <= _LONGEST_REMEMBERED else self._split_window
        return decide(window, upcoming)

    def _split_window(self, window: str, upcoming: _Characters) -> _Outcome:
        """Convert all before the open end of ``window``, and decide about that end alone."""
        complete, cut = self._complete_matches(window, stop_when_open=True)
        for match in reversed(complete):
            if match.start < cut < match.stop:
                cut = match.start
        # No key takes characters on both sides of the cut.
        head = self._choose(window[:cut], [match for match in complete if match.start < cut])
        tail = window[cut:]
        if not tail:
            return _Outcome(head, cut, len(head), None)
        decide = self._remembered_ends if len(tail) <= _LONGEST_REMEMBERED else self._decide_window
        certain, decided, settled, following = decide(tail, upcoming)
        return _Outcome(head + certain, cut + decided, len(head) + settled, following)

    def convert(self, segment: str) -> str:
        """The conversion of a whole segment."""
        complete, _ = self._complete_matches(segment, stop_when_open=False)
        return self._choose(segment, complete)

    def convert_with_offsets(self, segment: str) -> Derived:
        """As `convert`, with the places in ``segment``."""
        complete, _ = self._complete_matches(segment, stop_when_open=False)
        chosen = _decide(sorted(complete), len(segment)).chosen if len(complete) > 1 else complete
        result = Rewriting()
        position = 0
        for match in [*sorted(chosen, key=_start_of), None]:
            stop = match.start if match else len(segment)
            for place in range(position, stop):
                result.add_changed(segment[place].translate(self._characters), segment, place, place + 1)
            if match is None:
                break
            if match.rank // _RANKS_PER_DICTIONARY + 1 in self._of_words:
                result.add_changed(match.value, segment, match.start, match.stop)
            else:
                for place, char in enumerate(match.value, match.start):
                    result.add_changed(char, segment, place, place + 1)
            position = match.stop
        return result.done()

    def _complete_matches(self, text: str, stop_when_open: bool) -> tuple[list[_Match], int]:
        """The keys in ``text``, and the first place at which a key begins that may be longer than the text."""
        values, beginnings = self._values, self._beginnings
        found: list[_Match] = []
        end = first_open = len(text)
        for start in range(end):
            for stop in range(start + 1, end + 1):
                part = text[start:stop]
                value = values.get(part)
                if value is not None:
                    found.append(_Match(self._ranks[part], start, stop, value, False, (value,)))
                if part not in beginnings:
                    break
            else:
                if stop_when_open:
                    return found, start
                first_open = min(first_open, start)
        return found, first_open

    def _choose(self, text: str, complete: list[_Match]) -> str:
        """The conversion of ``text`` by the best of the matches in it."""
        if len(complete) > 1:
            complete = _decide(sorted(complete), len(text)).chosen
        return self._write(text, complete, len(text))

    def _openings_of(self, beginning: str, upcoming: _Characters) -> list[_Opening]:
        """The keys that begin with, and are longer than, ``beginning``, and go on with one of ``upcoming``."""
        found = self._openings.get((beginning, upcoming))
        if found is None:
            first = bisect_right(self._sorted_keys, beginning)
            last = bisect_right(self._sorted_keys, beginning + chr(sys.maxunicode))
            length = len(beginning)
            values: dict[int, set[str]] = {}
            for key in self._sorted_keys[first:last]:
                if upcoming is None or key[length] in upcoming:
                    values.setdefault(self._ranks[key], set()).add(self._values[key][:length])
            found = []
            known: set[str] = set()
            for rank in sorted(values):
                if not values[rank] <= known:  # else keys of a better rank stand for these as well
                    known |= values[rank]
                    found.append(_Opening(rank, os.path.commonprefix([*values[rank]]), tuple(values[rank])))
            self._openings[beginning, upcoming] = found
        return found

    def _matches(self, window: str, upcoming: _Characters) -> list[_Match]:
        """All matches that start in ``window``, sorted."""
        values, beginnings = self._values, self._beginnings
        found: list[_Match] = []
        end = len(window)
        for start in range(end):
            for stop in range(start + 1, end + 1):
                part = window[start:stop]
                value = values.get(part)
                if value is not None:
                    found.append(_Match(self._ranks[part], start, stop, value, False, (value,)))
                if part not in beginnings:
                    break
            else:
                for opening in self._openings_of(part, upcoming):
                    found.append(_Match(opening.rank, start, end, opening.agreed, True, opening.values))
        found.sort()
        return found

    def _decide_window(self, window: str, upcoming: _Characters) -> _Outcome:
        matches = self._matches(window, upcoming)
        chosen, doubtful = _decide(matches, len(window))
        if not doubtful:
            certain = self._write(window, chosen, len(window))
            return _Outcome(certain, len(window), len(certain), None)
        decided = min([match.start for match in doubtful])
        settled = self._write(window, chosen, decided)
        complete = [match for match in matches if not match.open]
        ahead, following = self._look_ahead(window, decided, complete, doubtful)
        return _Outcome(settled + ahead, decided, len(settled), following)

    def _write(self, window: str, chosen: list[_Match], stop: int) -> str:
        """Convert ``window[:stop]``; no chosen match crosses its end."""
        if not chosen:
            return window[:stop].translate(self._characters)
        out: list[str] = []
        position = 0
        for match in sorted(chosen, key=_start_of):
            if match.start < stop:
                out += window[position : match.start].translate(self._characters), match.value
                position = match.stop
        out.append(window[position:stop].translate(self._characters))
        return "".join(out)

    def _look_ahead(
        self, window: str, start: int, complete: list[_Match], doubtful: list[_Match]
    ) -> tuple[str, _Characters]:
        """How the conversion of ``window[start:]`` begins whatever text follows, and what can come next.

        Compares, character by character, the conversion that holds if the text ends here with all others
        that are possible: those by doubtful matches, and by none at all.
        """
        ending = _decide(complete, len(window)).chosen
        certain: list[str] = []
        for position in range(start, len(window)):
            alone = expected = window[position].translate(self._characters)
            possible = set()
            for match in ending:
                if match.takes(position):
                    expected = match.value[position - match.start : position - match.start + 1]
                    if match in doubtful and not _always_taken(position, match, doubtful):
                        possible.add(alone)
            for match in doubtful:
                if match.takes(position):
                    offset = position - match.start
                    if match.value[offset : offset + 1] == expected:
                        continue
                    possible.update([value[offset : offset + 1] for value in match.values])
            possible.add(expected)
            if len(possible) > 1 or not expected:
                return "".join(certain), None if any(len(c) != 1 for c in possible) else frozenset(possible)
            certain.append(expected)
            if _shifts_after(position, ending) or _shifts_after(position, doubtful):
                break
        return "".join(certain), None


class _Decision(NamedTuple):
    """The matches of a window that no later text can change, and those that it can choose or reject."""

    chosen: list[_Match]
    doubtful: list[_Match]


def _decide(matches: list[_Match], end: int) -> _Decision:
    """Choose among ``matches``, which are sorted, of a window of ``end`` characters."""
    if not matches:
        return _Decision([], [])
    free, doubted, taken = 0, 1, 2
    state = bytearray(end)
    chosen: list[_Match] = []
    doubtful: list[_Match] = []
    for match in matches:
        worst = max(state[match.start : match.stop])
        if worst == taken or (worst == doubted and _is_impossible(match, doubtful)):
            continue
        if worst == free and not match.open:
            chosen.append(match)
            mark = taken
        else:
            doubtful.append(match)
            mark = doubted
        state[match.start : match.stop] = bytes((mark,)) * (match.stop - match.start)
    return _Decision(chosen, doubtful)


def _is_impossible(match: _Match, better: list[_Match]) -> bool:
    """Whether, in any case, a better match takes characters of ``match``: a complete one or what displaces it."""
    return any(
        not other.open
        and other.overlaps(match)
        and all(rival.overlaps(match) for rival in better if rival < other and rival.overlaps(other))
        for other in better
    )


def _always_taken(position: int, match: _Match, doubtful: list[_Match]) -> bool:
    """Whether every match that could displace ``match`` takes the character at ``position`` as well."""
    return all(rival.takes(position) for rival in doubtful if rival < match and rival.overlaps(match))


def _shifts_after(position: int, matches: list[_Match]) -> bool:
    """Whether a value longer than its key ends here: places in text and conversion differ beyond it."""
    for match in matches:
        if match.stop == position + 1 and not match.open and len(match.value) > match.stop - match.start:
            return True
    return False


def _start_of(match: _Match) -> int:
    return match.start


class _StageStream:
    """One stage at work on a stream: keeps the window of text that is not decided yet."""

    def __init__(self, stage: _Stage) -> None:
        self._stage = stage
        self._window = ""
        self._given = 0  # how many characters of the window's conversion have already been returned

    def feed(self, piece: str, upcoming: _Characters) -> tuple[str, _Characters]:
        """Take text without separators; return the converted text that has become certain.

        Args:
            upcoming: the characters one of which the next piece must begin with; None: it can be any.

        Returns:
            The text, and the characters one of which the next returned text must begin with, or None.
        """
        if not self._window:
            converted = self._stage.convert_characters(piece)
            if converted is not None:
                return converted, None
        window, given = self._window + piece, self._given
        certain, decided, settled, following = self._stage.outcome(window, upcoming)
        self._window = window[decided:]
        self._given = max(given, len(certain)) - settled
        return certain[given:], following

    def finish(self, piece: str) -> str:
        """Take the last text of a segment; return all that was held."""
        window, given = self._window + piece, self._given
        if not window:
            return ""
        self._window, self._given = "", 0
        return self._stage.convert(window)[given:]


class _Separators(dict[str, bool]):
    """Whether a character separates segments; asked once for each character."""

    def __missing__(self, char: str) -> bool:
        found = self[char] = is_separator(char)
        return found


_SEPARATORS = _Separators()


@cache
def _load(config: str, source: Dictionaries) -> tuple[_Stage, ...]:
    """The chain of stages; without the keys that cannot match because a separator cuts them."""

    def whole(dictionary: dict[str, str]) -> dict[str, str]:
        return {key: value for key, value in dictionary.items() if not any(map(is_separator, key))}

    return tuple(_Stage([whole(entries) for entries in stage]) for stage in source.chain(config))
