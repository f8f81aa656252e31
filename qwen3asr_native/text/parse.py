"""The model's raw output: ``language Chinese<asr_text>文字``, whole or while it is being made."""

from __future__ import annotations

from typing import NamedTuple

TEXT_TAG = "<asr_text>"
LANGUAGE_PREFIX = "language "
NO_SPEECH = "none"

REPETITION_THRESHOLD = 20
LONGEST_PATTERN = 20


class ParsedOutput(NamedTuple):
    """What the model said: the language's name ("" when it named none) and the text."""

    language: str
    text: str


def parse_output(raw: str, forced_language: str | None = None) -> ParsedOutput:
    """Split raw model output into language and text, as the official package does.

    Repetitions are collapsed and surrounding white space is removed. Output without a tag is all text;
    ``language None`` with nothing after the tag means no speech: both fields are empty.

    Args:
        raw: everything that the model generated, special tokens but ``<asr_text>`` removed.
        forced_language: the language that the prompt already named; then everything is text.
    """
    raw = collapse_repetitions(raw.strip())
    if forced_language:
        return ParsedOutput(forced_language, raw)
    header, tag, text = raw.partition(TEXT_TAG)
    if not tag:
        return ParsedOutput("", raw)
    return ParsedOutput(_language_of(header), text.strip())


class StreamParser:
    """Takes raw output piece by piece and gives the text after ``<asr_text>`` as soon as it is text.

    Nothing before the tag ever leaves; output that ends without a tag was all text and comes from `flush`.
    The pieces add up to the text of `parse_output` except for collapsed repetitions, which only the
    complete output can show: trailing white space waits until more text follows it.

    Attributes:
        language: None until it is known, then as in `ParsedOutput`.
    """

    def __init__(self, forced_language: str | None = None) -> None:
        self.language: str | None = forced_language or None
        self._in_text = bool(forced_language)
        self._started = False
        self._held = ""

    def feed(self, piece: str) -> str:
        """Take the next piece of raw output; return the text that became certain."""
        self._held += piece
        if not self._in_text:
            header, tag, rest = self._held.partition(TEXT_TAG)
            if not tag:
                return ""
            self.language = _language_of(header)
            self._in_text = True
            self._held = rest
        return self._release()

    def flush(self) -> str:
        """End of output: return what was still held."""
        if not self._in_text:
            self.language = ""
            self._in_text = True
        text = self._release()
        self._held = ""
        return text

    def _release(self) -> str:
        text = self._held if self._started else self._held.lstrip()
        ready = text.rstrip()
        self._held = text[len(ready) :]
        self._started = self._started or bool(ready)
        return ready


def _language_of(header: str) -> str:
    """The language named by the text before the tag; "" for ``language None`` or none at all."""
    for line in header.splitlines():
        line = line.strip()
        if line.lower().startswith(LANGUAGE_PREFIX):
            name = line[len(LANGUAGE_PREFIX) :].strip()
            return "" if name.lower() == NO_SPEECH else name[:1].upper() + name[1:].lower()
    return ""


def collapse_repetitions(text: str) -> str:
    """Undo runaway repetition: each looped character or pattern is kept once.

    As the official post-step: first every run of more than 20 equal characters, then, reading from the left,
    every pattern of up to 20 characters that stands at least 20 times in a row (the shortest pattern wins;
    the last 39 characters start no pattern). Time is linear in the length of ``text``.
    """
    return _collapse_patterns(_collapse_characters(text))


def _collapse_characters(text: str) -> str:
    kept: list[str] = []
    start = 0
    while start < len(text):
        stop = start + 1
        while stop < len(text) and text[stop] == text[start]:
            stop += 1
        run = stop - start
        kept.append(text[start] if run > REPETITION_THRESHOLD else text[start:stop])
        start = stop
    return "".join(kept)


def _collapse_patterns(text: str) -> str:
    kept: list[str] = []
    # For each period, the first position not before `start` where the text stops repeating with that period:
    # it only moves forward, which keeps the whole pass linear.
    breaks = dict.fromkeys(range(1, LONGEST_PATTERN + 1), 0)
    start = 0
    while start <= len(text) - 2 * REPETITION_THRESHOLD:
        for period, broken in breaks.items():
            broken = max(broken, start)
            while broken + period < len(text) and text[broken] == text[broken + period]:
                broken += 1
            breaks[period] = broken
            repeats = (broken - start) // period + 1
            if repeats >= REPETITION_THRESHOLD:
                kept.append(text[start : start + period])
                start += repeats * period
                break
        else:
            kept.append(text[start])
            start += 1
    kept.append(text[start:])
    return "".join(kept)
