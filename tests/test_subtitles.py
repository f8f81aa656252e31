"""Subtitles: whole words, lines that can be read, times that grow; read back by other programs' readers."""

from __future__ import annotations

import io
import json
import re

import pysubs2
import pytest
import webvtt
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen3asr_native import ArgumentError
from qwen3asr_native.subtitles import FORMATS, Style, clock, cues, lrc, srt, tsv, txt, vtt, width, write
from qwen3asr_native.transcript import Segment, Timings, Transcript, Word


def segment(text: str, start: float = 0.0, end: float = 10.0, words: tuple[Word, ...] = ()) -> Segment:
    return Segment(start, end, text, "Chinese", text, "stop", Timings(), (), words)


def timed(text: str, times: list[tuple[float, float]], pattern: str = r"\S+") -> Segment:
    matches = list(re.finditer(pattern, text))
    words = tuple(
        Word(match[0], begin, end, match.start(), match.end()) for match, (begin, end) in zip(matches, times)
    )
    return segment(text, times[0][0], times[-1][1], words)


TEXTS = st.lists(
    st.one_of(
        st.sampled_from(["one", "forty-two", "3.5%", "internationalization", "I", "0900-123-456", "Dr."]),
        st.sampled_from(list("零一二三四五六七八九軟體辨識語音")),
        st.sampled_from(
            ["你好，", "世界。", "對！", "「是」", "（否）", "and,", "so.", "why?", "-->", "a<b>&c"]
        ),
    ),
    max_size=60,
).map(" ".join) | st.text("零一二三，。！ab 1.", max_size=120)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(TEXTS, st.floats(0, 30), st.floats(0, 3)), max_size=6))
def test_times_grow_lines_fit_and_no_text_is_lost(parts: list[tuple[str, float, float]]) -> None:
    segments, time = [], 0.0
    for text, length, gap in parts:
        segments.append(segment(text, time, time + length))
        time += length + gap
    made = cues(segments)
    style = Style()
    for cue in made:
        assert 0 <= cue.start < cue.end
        assert 1 <= len(cue.lines) <= 2
        for line in cue.lines:
            assert line == line.strip()
            assert line
            longest = max(width(word) for word in re.split(r"(?<=[\u4e00-\u9fff])|\s", line))
            assert width(line) <= max(style.columns, longest)
    for before, after in zip(made, made[1:]):
        assert before.end <= after.start + 0.0011
    squeezed = "".join("".join(cue.lines) for cue in made).replace(" ", "")
    assert squeezed == re.sub(r"\s", "", "".join(text for text, _, _ in parts))


@settings(max_examples=100, deadline=None)
@given(TEXTS)
def test_words_and_numbers_are_never_broken(text: str) -> None:
    lines = [line for cue in cues([segment(text)]) for line in cue.lines]
    for word in re.findall(r"[A-Za-z0-9][A-Za-z0-9.%-]*", text):
        assert any(word.rstrip(".-") in line for line in lines)
    for line in lines:
        if line[0] in ",.!?;:，。！？；：、%":  # only where the text itself has it at the begin of a word
            assert re.search(rf"(^|\s){re.escape(line[0])}", text)


@st.composite
def spoken(draw: st.DrawFn) -> list[Segment]:
    """Segments whose words have times: of any length, overlapping, late, going back, some words without any."""
    segments, now = [], 0.0
    for _ in range(draw(st.integers(1, 4))):
        text = draw(TEXTS)
        start = now + draw(st.floats(0, 5))
        words, at = [], start
        for match in re.finditer(r"[A-Za-z0-9.%-]+|[\u4e00-\u9fff]", text):
            begin = max(start, at + draw(st.floats(-0.5, 1.0)))
            at = begin + draw(st.sampled_from([0.0, 0.1, 0.4, 3.0, 9.0]))
            if draw(st.integers(0, 9)):
                words.append(Word(match[0], begin, at, match.start(), match.end()))
        now = max([start + 0.5, *(word.end for word in words)])
        segments.append(segment(text, start, now, tuple(words)))
    return segments


@settings(max_examples=200, deadline=None)
@given(spoken())
def test_cues_of_timed_words_keep_the_rules_whatever_the_times_are(segments: list[Segment]) -> None:
    made, style = cues(segments), Style()
    for cue in made:
        assert 0 <= cue.start < cue.end <= cue.start + style.most_seconds + 1e-6
        assert 1 <= len(cue.lines) <= style.lines
        for line in cue.lines:
            longest = max(width(word) for word in re.split(r"(?<=[\u4e00-\u9fff])|\s", line))
            assert width(line) <= max(style.columns, longest)
    for cue, following in zip(made, made[1:]):
        assert cue.end <= following.start + 0.0011
        # As long as people need to see that there is something, where the next one leaves room.
        room = following.start - style.gap_seconds - cue.start
        assert cue.end - cue.start >= min(style.least_seconds, room) - 1e-6
    if made:
        assert made[-1].end - made[-1].start >= style.least_seconds - 1e-6
    said = "".join(re.sub(r"\s", "", part.text) for part in segments)
    assert "".join("".join(cue.lines) for cue in made).replace(" ", "") == said
    lines = [line for cue in made for line in cue.lines]
    for part in segments:
        for word in re.findall(r"[A-Za-z0-9][A-Za-z0-9.%-]*", part.text):
            assert any(word.rstrip(".-") in line for line in lines)


def test_sentences_and_pauses_end_a_cue() -> None:
    made = cues([segment("今天天氣很好。我們去散步吧！", 0, 6)])
    assert [cue.text for cue in made] == ["今天天氣很好。", "我們去散步吧！"]
    times = [(0, 0.3), (0.3, 0.6), (2.0, 2.3), (2.3, 2.6)]
    made = cues([timed("one two three four", times)])
    assert [cue.text for cue in made] == ["one two", "three four"]
    assert made[0].start == 0
    assert made[1].start == 2.0
    assert made[0].end <= 2.0 - 2 / 24 + 1e-9


def test_a_long_sentence_is_cut_at_its_last_comma_that_fits() -> None:
    text = "we went to the market in the morning, and bought some apples and pears for the long trip, which was nice"
    made = cues([segment(text, 0, 9)])
    assert made[0].lines[-1].endswith(",")
    assert all(width(line) <= 42 for cue in made for line in cue.lines)


def test_a_cue_stays_as_long_as_reading_takes_if_there_is_room() -> None:
    text = "this is quickly said but takes longer to read"
    (alone,) = cues([segment(text, 1, 1.5)])
    assert alone.end == pytest.approx(1 + len(text) / 17)
    first, second = cues([segment(text, 1, 1.5), segment("next", 2, 3)])
    assert first.end <= second.start


def test_chinese_lines_hold_sixteen_characters() -> None:
    made = cues([segment("零" * 40, 0, 8)])
    assert max(width(line) for cue in made for line in cue.lines) <= 32
    assert next(cue.lines for cue in made) == ("零" * 16, "零" * 16)


def test_an_initial_or_a_decimal_does_not_end_a_sentence() -> None:
    assert len(cues([segment("J. Smith paid 3.5 dollars", 0, 4)])) == 1


NASTY = "a --> b <i>&amp;</i> {\\an8} 1\n\n2"


def test_srt_is_read_back_by_pysubs2() -> None:
    segments = [segment("今天天氣很好。", 0, 2), segment("hello world", 3661.5, 3663)]
    read = pysubs2.SSAFile.from_string(srt(segments), format_="srt")
    assert [line.plaintext for line in read] == ["今天天氣很好。", "hello world"]
    assert [line.start for line in read] == [0, 3661500]


def test_vtt_is_read_back_by_webvtt_and_holds_no_markup() -> None:
    text = vtt([segment(NASTY, 1, 3), segment("two", 4, 5)])
    read = webvtt.from_buffer(io.StringIO(text))
    assert len(read.captions) == len(cues([segment(NASTY, 1, 3), segment("two", 4, 5)]))
    assert "<i>" not in text
    assert text.count("-->") == len(read.captions)
    assert read.captions[-1].start == "00:00:04.000"


def test_srt_text_cannot_look_like_a_time_or_end_its_cue() -> None:
    text = srt([segment(NASTY, 1, 3)])
    assert text.count("-->") == len(
        re.findall(r"^\d\d:\d\d:\d\d,\d{3} --> \d\d:\d\d:\d\d,\d{3}$", text, re.M)
    )
    assert len(text.strip().split("\n\n")) == len(cues([segment(NASTY, 1, 3)]))


def test_the_simple_formats() -> None:
    segments = [segment("one\ttwo", 0, 1.5), segment("", 1.5, 2), segment("三", 62, 63)]
    assert tsv(segments) == "start\tend\ttext\n0\t1500\tone two\n62000\t63000\t三\n"
    assert txt(segments) == "one two\n三\n"
    assert lrc(segments).startswith("[00:00.00]one two\n")
    assert "[01:02.00]三\n" in lrc(segments)
    assert clock(3599.9996) == "01:00:00,000"


def test_every_format_writes_a_transcript_and_an_unknown_one_is_named() -> None:
    parts = (segment("一二三", 0, 2),)
    transcript = Transcript("一二三", "Chinese", "一二三", "一二三", None, None, parts, (), Timings(), "stop")
    for name in FORMATS:
        assert "一二三" in write(transcript, name)
    assert json.loads(write(transcript, "json"))["text"] == "一二三"
    with pytest.raises(ArgumentError, match=r"'doc'.*srt"):
        write(transcript, "doc")
