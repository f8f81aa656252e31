"""Subtitles and other text formats from a transcript.

Cues keep to what subtitlers agree on: at most two lines of 42 columns (16 characters of Chinese, Japanese or Korean,
which are two columns wide, fill 32), on screen from 5/6 of a second to 7 seconds, as long as reading takes where there is
room, broken at the ends of sentences, at pauses and at commas, never inside a word or a number, with no closing mark at
the begin of a line. Times come from the words where the transcript has them; else they are shared out over the segment
by the width of the text.
"""

from __future__ import annotations

import functools
import json
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .errors import ArgumentError

if TYPE_CHECKING:
    from .transcript import Segment, Transcript


@dataclass(frozen=True)
class Style:
    """What cues look like.

    Attributes:
        columns: Of a line, at most; a wide character takes two.
        wide_columns: The same for text that is mostly wide characters.
        lines: At most.
        least_seconds: A cue stays as long, if the next one leaves room.
        most_seconds: And no longer.
        characters_per_second: How fast people read.
        wide_per_second: How fast they read wide characters.
        pause_seconds: Silence between two words that ends a cue.
        linger_seconds: A cue stays after its last word, if there is room.
        gap_seconds: Between two cues: two frames of a film.
    """

    columns: int = 42
    wide_columns: int = 32
    lines: int = 2
    least_seconds: float = 5 / 6
    most_seconds: float = 7.0
    characters_per_second: float = 17.0
    wide_per_second: float = 9.0
    pause_seconds: float = 0.6
    linger_seconds: float = 0.2
    gap_seconds: float = 2 / 24


@dataclass(frozen=True)
class Cue:
    """Lines on the screen, from ``start`` to ``end``, seconds."""

    start: float
    end: float
    lines: tuple[str, ...]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


@dataclass(frozen=True)
class _Unit:
    """What no line break may divide: a word with its marks, or one ideograph with its marks."""

    text: str  # with the white space before it
    start: float
    end: float

    @property
    def last(self) -> str:
        return self.text.rstrip("".join(_CLOSING_QUOTES))[-1:] or self.text[-1:]


_OPENING = "([{（［｛「『《〈【〔“‘¿¡"
_CLOSING_QUOTES = ")]}）］｝」』》〉】〕”’\"'"
_MARKS = ",.!?;:，。！？；：、…‥・~～%％°—-" + _CLOSING_QUOTES
_SENTENCE_ENDS = ".!?。！？…"
_COMMAS = ",;:，；：、—"
_WIDE = r"\u1100-\u115F\u2E80-\u303E\u3041-\uA4CF\uAC00-\uD7A3\uF900-\uFAFF\uFE30-\uFE4F\uFF01-\uFF60\U00020000-\U0003FFFF"
# Korean and full-width letters are written in words; ideographs, kana and Yi are not.
_ALONE = r"\u2E80-\u2FDF\u3005-\u3007\u3021-\u3029\u3041-\u30FA\u30FC-\u312F\u31A0-\u31FF\u3400-\uA4CF\uF900-\uFAFF\U00020000-\U0003FFFF"
_CLASS = "[" + re.escape(_OPENING) + "]"
_UNIT = re.compile(
    rf"\s*{_CLASS}*(?:[{_ALONE}]|[^\s{_ALONE}{re.escape(_OPENING)}]+?(?=[\s{_ALONE}{re.escape(_OPENING)}]|$)|$)"
    rf"[{re.escape(_MARKS)}]*"
)


def cues(segments: Iterable[Segment], style: Style | None = None) -> list[Cue]:
    """The cues of segments in their order. Their times grow, and no two overlap."""
    style = style or Style()
    groups = [group for segment in segments for group in _groups(_units(segment), style)]
    made: list[Cue] = []
    for group, following in zip(groups, [*groups[1:], None]):
        start = max(group[0].start, made[-1].end if made else 0.0)
        room = float("inf") if following is None else following[0].start - style.gap_seconds
        text = _text(group)
        wanted = max(
            group[-1].end + style.linger_seconds, start + style.least_seconds, start + _reading(text, style)
        )
        end = min(wanted, start + style.most_seconds, max(room, group[-1].end))
        if following is not None:
            end = min(end, max(following[0].start, start))
        made.append(Cue(start, max(end, start + 0.001), _lines(group, style)))
    return made


def _units(segment: Segment) -> list[_Unit]:
    """The words of a segment with their times."""
    pieces = [match for match in _UNIT.finditer(segment.text) if match[0].strip()]
    if not pieces:
        return []
    words = [word for word in segment.words if word.end_offset > word.offset]
    if not words:
        return _shared_out([match[0] for match in pieces], segment.start, segment.end)
    units: list[_Unit] = []
    time = segment.start
    for match in pieces:
        inside = [word for word in words if word.offset < match.end() and word.end_offset > match.start()]
        start = max(time, min((word.start for word in inside), default=time))
        time = max(start, max((word.end for word in inside), default=start))
        units.append(_Unit(match[0], start, time))
    return units


def _shared_out(texts: Sequence[str], start: float, end: float) -> list[_Unit]:
    total = sum(map(width, texts)) or 1
    units, done = [], 0
    for text in texts:
        begin, done = done, done + width(text)
        share = (end - start) / total
        units.append(_Unit(text, start + share * begin, start + share * done))
    return units


def _groups(units: list[_Unit], style: Style) -> list[list[_Unit]]:
    """Units of one cue each: sentences, cut where they are too long, joined where they are too short."""
    sentences: list[list[_Unit]] = []
    for unit in units:
        if not sentences or _ends(sentences[-1][-1], unit, style):
            sentences.append([])
        sentences[-1].append(unit)
    groups: list[list[_Unit]] = []
    for sentence in sentences:
        for part in _cut(sentence, style):
            if groups and _joinable(groups[-1], part, style):
                groups[-1] = groups[-1] + part
            else:
                groups.append(part)
    return groups


def _ends(unit: _Unit, following: _Unit, style: Style) -> bool:
    if following.start - unit.end >= style.pause_seconds:
        return True
    # A point between digits or after an initial is none of a sentence's.
    return unit.last in _SENTENCE_ENDS and not (unit.last == "." and len(unit.text.strip()) <= 2)


def _joinable(first: list[_Unit], second: list[_Unit], style: Style) -> bool:
    """Whether a cue that would be gone too soon can go with the next one."""
    return (
        first[-1].end - first[0].start < style.least_seconds
        and second[0].start - first[-1].end < style.pause_seconds
        and _fits(first + second, style)
    )


def _cut(units: list[_Unit], style: Style) -> list[list[_Unit]]:
    parts: list[list[_Unit]] = []
    while units:
        count = 1
        while count < len(units) and _fits(units[: count + 1], style):
            count += 1
        if count < len(units):
            # The last comma of what fits, unless it comes so early that a stub would be left.
            commas = [i + 1 for i in range(count) if units[i].last in _COMMAS and 5 * (i + 1) >= 2 * count]
            count = commas[-1] if commas else count
        parts.append(units[:count])
        units = units[count:]
    return parts


def _fits(units: list[_Unit], style: Style) -> bool:
    if units[-1].end - units[0].start > style.most_seconds:
        return False
    columns = _columns(_text(units), style)
    return all(width(line) <= columns for line in _lines(units, style))


def _lines(units: list[_Unit], style: Style) -> tuple[str, ...]:
    """One line if it is enough, else two of about the same width, the lower one longer."""
    text = _text(units)
    columns = _columns(text, style)
    if width(text) <= columns or len(units) == 1 or style.lines == 1:
        return (text,)

    def badness(i: int) -> tuple[bool, float]:
        upper, lower = width(_text(units[:i])), width(_text(units[i:]))
        bonus = 0.25 * columns if units[i - 1].last in _COMMAS + _SENTENCE_ENDS else 0
        return max(upper, lower) > columns, abs(lower - upper) + (2 if upper > lower else 0) - bonus

    best = min(range(1, len(units)), key=badness)
    return _text(units[:best]), _text(units[best:])


def _text(units: Sequence[_Unit]) -> str:
    return re.sub(r"\s+", " ", "".join(unit.text for unit in units)).strip()


def width(text: str) -> int:
    """Columns of a text: two for East Asian wide and full-width characters, none for combining ones."""
    return sum(map(_character_width, text))


@functools.lru_cache(maxsize=4096)
def _character_width(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _is_wide(text: str) -> bool:
    wide = len(re.findall(f"[{_WIDE}]", text))
    return 2 * wide > len(text.replace(" ", ""))


def _columns(text: str, style: Style) -> int:
    return style.wide_columns if _is_wide(text) else style.columns


def _reading(text: str, style: Style) -> float:
    """Seconds that reading takes."""
    return len(text) / (style.wide_per_second if _is_wide(text) else style.characters_per_second)


# ---- formats ----


def clock(seconds: float, mark: str = ",", hours: bool = True) -> str:
    """HH:MM:SS,mmm."""
    milliseconds = round(seconds * 1000)
    minutes, rest = divmod(milliseconds, 60_000)
    second = f"{rest // 1000:02}{mark}{rest % 1000:03}"
    return f"{minutes // 60:02}:{minutes % 60:02}:{second}" if hours else f"{minutes:02}:{second}"


def srt(segments: Iterable[Segment], style: Style | None = None) -> str:
    """SubRip."""
    return "".join(
        f"{number}\n{clock(cue.start)} --> {clock(cue.end)}\n{cue.text.replace('-->', '->')}\n\n"
        for number, cue in enumerate(cues(segments, style), 1)
    )


def vtt(segments: Iterable[Segment], style: Style | None = None) -> str:
    """WebVTT. What its text would take for markup is escaped."""
    escapes = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})
    return "WEBVTT\n\n" + "".join(
        f"{clock(cue.start, '.')} --> {clock(cue.end, '.')}\n{cue.text.translate(escapes)}\n\n"
        for cue in cues(segments, style)
    )


def lrc(segments: Iterable[Segment], style: Style | None = None) -> str:
    """Lyrics: a time in hundredths before each line; an empty line where a pause begins."""
    lines = []
    made = cues(segments, style)
    for cue, following in zip(made, [*made[1:], None]):
        lines.append(f"[{_hundredths(cue.start)}]{' '.join(cue.lines)}\n")
        if following is None or following.start - cue.end > 1:
            lines.append(f"[{_hundredths(cue.end)}]\n")
    return "".join(lines)


def _hundredths(seconds: float) -> str:
    hundredths = round(seconds * 100)
    return f"{hundredths // 6000:02}:{hundredths // 100 % 60:02}.{hundredths % 100:02}"


def tsv(segments: Iterable[Segment], style: Style | None = None) -> str:
    """A line for each segment: begin and end in milliseconds, text, separated by tabs."""
    rows = [
        f"{round(segment.start * 1000)}\t{round(segment.end * 1000)}\t{_one_line(segment.text)}\n"
        for segment in segments
        if segment.text
    ]
    return "start\tend\ttext\n" + "".join(rows)


def txt(segments: Iterable[Segment], style: Style | None = None) -> str:
    """A line for each segment."""
    return "".join(f"{_one_line(segment.text)}\n" for segment in segments if segment.text)


def _one_line(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()


#: Name of a format, which is also the suffix of its files -> what writes segments in it.
WRITERS: dict[str, Callable[..., str]] = {"txt": txt, "srt": srt, "vtt": vtt, "tsv": tsv, "lrc": lrc}
#: Every format; JSON holds more than segments.
FORMATS = (*WRITERS, "json")


def write(transcript: Transcript, format: str, style: Style | None = None) -> str:
    """A transcript in one of ``FORMATS``.

    Raises:
        ArgumentError: There is no such format.
    """
    if format == "json":
        return json.dumps(transcript.to_dict(), ensure_ascii=False, indent=1) + "\n"
    if format not in WRITERS:
        raise ArgumentError(f"there is no format {format!r}; use one of {', '.join(FORMATS)}")
    return WRITERS[format](transcript.segments, style)
