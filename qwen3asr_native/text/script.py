"""Chinese script conversion (OpenCC) that works while the text is still being made.

The dictionaries, and the meaning of a conversion, are those of ``opencc-python-reimplemented``: the result
equals its ``OpenCC(config).convert``. That library wants the whole text and takes milliseconds per sentence;
`ScriptConverter` takes pieces of any size and returns at once what no later text can change.

How a conversion works. Text is cut at punctuation and white space. Each segment passes a chain of stages, each
stage a group of dictionaries. In a stage the dictionaries come in order, in a dictionary the longest key
anywhere in the segment first, equally long keys from left to right; a key takes its characters if no
key before it has taken one of them. So every possible match has a rank, and a match is chosen
when no match of a better rank that overlaps it is chosen.
"""

from __future__ import annotations

import json
import os
import re
import sys
from bisect import bisect_right
from functools import cache
from importlib import resources
from typing import Any, NamedTuple, Optional

TAIWAN = "zh-TW"
ALIASES = {TAIWAN: "s2twp"}

_Characters = Optional[frozenset[str]]

# Ranks order the matches of a stage: dictionaries first, then longer keys. No key is this long.
_RANKS_PER_DICTIONARY = 1000


def available_variants() -> list[str]:
    """The names that `ScriptConverter` takes: "zh-TW" and the names of OpenCC's configurations."""
    configs = (resources.files("opencc") / "config").iterdir()
    return sorted(
        [*ALIASES, *(entry.name[: -len(".json")] for entry in configs if entry.name.endswith(".json"))]
    )


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

    Raises:
        ValueError: ``variant`` is not one of `available_variants`.
    """

    def __init__(self, variant: str) -> None:
        if variant not in available_variants():
            names = ", ".join(available_variants())
            raise ValueError(f"unknown script variant {variant!r}: choose one of {names}")
        self.variant = variant
        self._separator, stages = _load(ALIASES.get(variant, variant))
        self._streams = [_StageStream(stage) for stage in stages]

    def convert(self, text: str) -> str:
        """Convert a whole text; independent of what has been fed."""
        fresh = ScriptConverter(self.variant)
        return fresh.feed(text) + fresh.flush()

    def feed(self, piece: str) -> str:
        """Take the next piece of text; return all converted text that has become certain."""
        if not self._separator.search(piece):
            return self._pass(piece)
        out: list[str] = []
        # The pattern has one group, so that split() puts the separators at the odd places.
        for index, part in enumerate(self._separator.split(piece)):
            if index % 2:
                out.append(self.flush() + part)
            elif part:
                out.append(self._pass(part))
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
    """A key that stands in the window, or (``open``) the start of keys that later text may complete."""

    rank: int  # of an open match: the best that it can become
    start: int
    stop: int
    value: str  # of an open match: what all its possible values begin with
    open: bool


class _Stage:
    """One step of a conversion: dictionaries of which at most one match takes each character."""

    def __init__(self, dictionaries: list[dict[str, str]]) -> None:
        phrases, last = dictionaries[:-1], dictionaries[-1]
        # A last dictionary of single characters has the lowest ranks: it converts what no match has taken.
        single = all(len(key) == 1 for key in last)
        self.characters = str.maketrans(last) if single else {}
        if not single:
            phrases = dictionaries
        self.values: dict[str, str] = {}
        self._ranks: dict[str, int] = {}
        self._best_ranks: dict[str, int] = {}  # of the keys that begin with, and are longer than, a string
        for index, dictionary in enumerate(phrases, 1):
            for key, value in dictionary.items():
                self._add(key, value, index * _RANKS_PER_DICTIONARY - len(key))
        self._sorted_keys = sorted(self.values)
        self._agreed: dict[str, str] = {}
        self._choices: dict[tuple[str, int], frozenset[str]] = {}

    def _add(self, key: str, value: str, rank: int) -> None:
        if key in self.values:
            return
        self.values[key] = value
        self._ranks[key] = rank
        for length in range(1, len(key)):
            prefix = key[:length]
            self._best_ranks[prefix] = min(rank, self._best_ranks.get(prefix, rank))

    def _longer_values(self, prefix: str) -> list[str]:
        """The values of all keys that begin with, and are longer than, ``prefix``."""
        first = bisect_right(self._sorted_keys, prefix)
        last = bisect_right(self._sorted_keys, prefix + chr(sys.maxunicode))
        return [self.values[key] for key in self._sorted_keys[first:last]]

    def _agreed_value(self, prefix: str) -> str:
        """What the values of all keys that begin with, and are longer than, ``prefix`` begin with."""
        found = self._agreed.get(prefix)
        if found is None:
            found = self._agreed[prefix] = os.path.commonprefix(self._longer_values(prefix))
        return found

    def choices(self, prefix: str, offset: int) -> frozenset[str]:
        """The characters that stand at ``offset`` in these values ("" where one is shorter)."""
        place = prefix, offset
        found = self._choices.get(place)
        if found is None:
            values = self._longer_values(prefix)
            found = self._choices[place] = frozenset([value[offset : offset + 1] for value in values])
        return found

    def _continues(self, prefix: str, upcoming: _Characters) -> bool:
        """Whether a key can begin with ``prefix`` and one of the characters that may come next."""
        if upcoming is None:
            return True
        return any(prefix + char in self._best_ranks or prefix + char in self.values for char in upcoming)

    def matches(self, window: str, upcoming: _Characters = None) -> list[_Match]:
        """All matches that start in ``window``, best rank first, equal ranks from left to right.

        Args:
            upcoming: the characters one of which must follow the window, if any does; None: any can.
        """
        values, best_ranks, ranks = self.values, self._best_ranks, self._ranks
        found: list[_Match] = []
        end = len(window)
        for start in range(end):
            for stop in range(start + 1, end + 1):
                part = window[start:stop]
                if part in values:
                    found.append(_Match(ranks[part], start, stop, values[part], False))
                if part not in best_ranks:
                    break
            else:
                if self._continues(part, upcoming):
                    found.append(_Match(best_ranks[part], start, end, self._agreed_value(part), True))
        found.sort()
        return found


class _Decision(NamedTuple):
    """The matches of a window that no later text can change, and those that it can choose or reject."""

    chosen: list[_Match]
    doubtful: list[_Match]


def _decide(matches: list[_Match], end: int) -> _Decision:
    """Choose among ``matches``, which are sorted by rank, of a window of ``end`` characters."""
    free, doubted, taken = 0, 1, 2
    state = bytearray(end)
    chosen: list[_Match] = []
    doubtful: list[_Match] = []
    for match in matches:
        worst = max(state[match.start : match.stop])
        if worst == taken:
            continue
        if worst == free and not match.open:
            chosen.append(match)
            mark = taken
        else:
            doubtful.append(match)
            mark = doubted
        state[match.start : match.stop] = bytes((mark,)) * (match.stop - match.start)
    return _Decision(chosen, doubtful)


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
        window = self._window + piece
        matches = self._stage.matches(window, upcoming) if self._stage.values else []
        given = self._given
        if not matches:
            self._window, self._given = "", 0
            return window.translate(self._stage.characters)[given:], None
        chosen, doubtful = _decide(matches, len(window))
        undecided = min((match.start for match in doubtful), default=len(window))
        certain = settled = self._convert(window, chosen, 0, undecided)
        following = None
        if doubtful:
            ahead, following = self._certain_beginning(window, undecided, matches, doubtful)
            certain += ahead
        self._window = window[undecided:]
        self._given = max(given, len(certain)) - len(settled)
        return certain[given:], following

    def finish(self, piece: str) -> str:
        """Take the last text of a segment; return all that was held."""
        window, given = self._window + piece, self._given
        self._window, self._given = "", 0
        matches = [match for match in self._stage.matches(window) if not match.open]
        return self._convert(window, _decide(matches, len(window)).chosen, 0, len(window))[given:]

    def _convert(self, window: str, chosen: list[_Match], start: int, stop: int) -> str:
        """Convert ``window[start:stop]``, which no chosen match crosses the borders of."""
        characters = self._stage.characters
        out: list[str] = []
        position = start
        for match in sorted(chosen, key=_start_of):
            if start <= match.start < stop:
                out += window[position : match.start].translate(characters), match.value
                position = match.stop
        out.append(window[position:stop].translate(characters))
        return "".join(out)

    def _certain_beginning(
        self, window: str, start: int, matches: list[_Match], doubtful: list[_Match]
    ) -> tuple[str, _Characters]:
        """How the conversion of ``window[start:]`` begins whatever text follows, and what can come next.

        Compares, character by character, the conversion that holds if the text ends here with all others
        that are possible: those by doubtful matches, and by none at all.
        """
        characters = self._stage.characters
        ending = _decide([match for match in matches if not match.open], len(window)).chosen
        certain: list[str] = []
        for position in range(start, len(window)):
            alone = expected = window[position].translate(characters)
            here = None
            for match in ending:
                if match.start <= position < match.stop:
                    here = match
                    expected = match.value[position - match.start : position - match.start + 1]
            displaced = here in doubtful and not _always_taken(position, here, doubtful)
            if not expected or not _agree(position, expected, doubtful) or (displaced and expected != alone):
                return "".join(certain), self._possible(window, position, doubtful, {expected, alone})
            certain.append(expected)
            if _shifts_after(position, ending) or _shifts_after(position, doubtful):
                break
        return "".join(certain), None

    def _possible(self, window: str, position: int, doubtful: list[_Match], found: set[str]) -> _Characters:
        """All that the character at ``position`` may become; None if that is not only one character."""
        for match in doubtful:
            offset = position - match.start
            if not 0 <= offset < match.stop - match.start:
                continue
            if match.open:
                found |= self._stage.choices(window[match.start : match.stop], offset)
            else:
                found.add(match.value[offset : offset + 1])
        return None if any(len(char) != 1 for char in found) else frozenset(found)


def _agree(position: int, expected: str, rivals: list[_Match]) -> bool:
    """Whether every rival that takes the character at ``position`` makes ``expected`` of it."""
    for match in rivals:
        if match.start <= position < match.stop:
            offset = position - match.start
            if match.value[offset : offset + 1] != expected:
                return False
    return True


def _shifts_after(position: int, matches: list[_Match]) -> bool:
    """Whether a value longer than its key ends here: places in text and conversion differ beyond it."""
    for match in matches:
        if match.stop == position + 1 and not match.open and len(match.value) > match.stop - match.start:
            return True
    return False


def _start_of(match: _Match) -> int:
    return match.start


def _always_taken(position: int, match: _Match | None, doubtful: list[_Match]) -> bool:
    """Whether every match that could displace ``match`` takes the character at ``position`` as well."""
    return match is not None and all(
        rival.start <= position < rival.stop
        for rival in doubtful
        if rival < match and rival.start < match.stop and match.start < rival.stop
    )


@cache
def _load(config: str) -> tuple[re.Pattern[str], tuple[_Stage, ...]]:
    """Read OpenCC's configuration: the pattern of segment separators and the chain of stages."""
    from opencc import OpenCC  # type: ignore[import-untyped]

    separator: re.Pattern[str] = OpenCC().split_chars_re
    root = resources.files("opencc")
    chain = json.loads((root / "config" / f"{config}.json").read_text(encoding="utf-8"))["conversion_chain"]

    def dictionaries(node: dict[str, Any]) -> list[dict[str, str]]:
        if node["type"] == "group":
            return [entry for child in node["dicts"] for entry in dictionaries(child)]
        return [_read_dictionary((root / "dictionary" / node["file"]).read_text(encoding="utf-8"), separator)]

    return separator, tuple(_Stage(dictionaries(step["dict"])) for step in chain)


def _read_dictionary(lines: str, separator: re.Pattern[str]) -> dict[str, str]:
    """Key and first value of each line; without the keys that cannot match because a separator cuts them."""
    entries = (line.strip().split("\t") for line in lines.splitlines())
    return {key: values.split(" ")[0] for key, values in entries if not separator.search(key)}
