"""Parsing of the model's raw output, whole and streamed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen3asr_native.text import is_chinese
from qwen3asr_native.text.parse import ParsedOutput, StreamParser, collapse_repetitions, parse_output


@pytest.mark.parametrize(
    ("raw", "language", "text"),
    [
        ("language Chinese<asr_text>你好。", "Chinese", "你好。"),
        ("language None<asr_text>", "", ""),
        ("language None<asr_text>喂", "", "喂"),
        ("language english<asr_text> hello ", "English", "hello"),
        ("language Chinese\n<asr_text>你好", "Chinese", "你好"),
        ("沒有標記", "", "沒有標記"),
        ("<asr_text>你好", "", "你好"),
        ("noise<asr_text>你好<asr_text>", "", "你好<asr_text>"),
        ("", "", ""),
        ("  \n", "", ""),
    ],
)
def test_output_is_split_into_language_and_text(raw: str, language: str, text: str) -> None:
    assert parse_output(raw) == ParsedOutput(language, text)


def test_with_a_forced_language_everything_is_text() -> None:
    assert parse_output("你好<asr_text>", "Chinese") == ParsedOutput("Chinese", "你好<asr_text>")


@pytest.mark.parametrize(
    ("text", "collapsed"),
    [
        ("好" * 20, "好" * 20),
        ("好" * 21, "好"),
        ("啊" + "好" * 500 + "吧", "啊好吧"),
        ("你好" * 19, "你好" * 19),
        ("你好" * 20, "你好"),
        ("一二三四五六七八九十甲乙丙丁戊己庚辛壬癸" * 30, "一二三四五六七八九十甲乙丙丁戊己庚辛壬癸"),
        (
            "一二三四五六七八九十甲乙丙丁戊己庚辛壬癸子" * 30,
            "一二三四五六七八九十甲乙丙丁戊己庚辛壬癸子" * 30,
        ),
        ("對," * 25 + "然後" + "no " * 40 + "end", "對,然後no end"),
        ("你好" * 20 + "你", "你好你"),
        ("", ""),
    ],
)
def test_runaway_repetition_is_collapsed(text: str, collapsed: str) -> None:
    assert collapse_repetitions(text) == collapsed


def test_a_run_of_exactly_twenty_counts_as_a_pattern_when_enough_text_follows() -> None:
    assert collapse_repetitions("好" * 20 + "abcdefghijklmnopqrst") == "好abcdefghijklmnopqrst"
    assert collapse_repetitions("好" * 20 + "abcdefghijklmnopqrs") == "好" * 20 + "abcdefghijklmnopqrs"


def _collapse_by_definition(text: str) -> str:
    """Patterns tried one by one at each place: the meaning of the second step, without its economy."""
    place, kept = 0, ""
    while place <= len(text) - 40:
        for length in range(1, 21):
            pattern = text[place : place + length]
            if text.startswith(pattern * 20, place):
                while text.startswith(pattern, place):
                    place += length
                kept += pattern
                break
        else:
            kept += text[place]
            place += 1
    return kept + text[place:]


_looped = st.lists(
    st.tuples(st.text("ab", min_size=1, max_size=5), st.integers(1, 25)).map(lambda pair: pair[0] * pair[1]),
    max_size=5,
).map("".join)


@given(_looped)
def test_collapsing_patterns_follows_the_definition(text: str) -> None:
    assume_no_long_runs = text.replace("a" * 20, "").replace("b" * 20, "") == text
    if assume_no_long_runs:
        assert collapse_repetitions(text) == _collapse_by_definition(text)


def _stream(raw: str, cuts: list[int], forced: str | None = None) -> tuple[str | None, str]:
    parser = StreamParser(forced)
    places = [0, *sorted(min(cut, len(raw)) for cut in cuts), len(raw)]
    pieces = [parser.feed(raw[start:stop]) for start, stop in zip(places, places[1:])]
    return parser.language, "".join(pieces) + parser.flush()


_raw = st.lists(
    st.sampled_from(
        ["language ", "Chinese", "None", "<asr_text>", "<asr", "_text>", "你好", " ", "\n", "a", "。"]
    ),
    max_size=8,
).map("".join)


@given(_raw, st.lists(st.integers(0, 60), max_size=6), st.sampled_from([None, "Chinese"]))
def test_streamed_pieces_add_up_to_the_parsed_text(raw: str, cuts: list[int], forced: str | None) -> None:
    assert _stream(raw, cuts, forced)[1] == parse_output(raw, forced).text


def test_nothing_leaks_before_the_tag_and_the_language_is_known_with_it() -> None:
    parser = StreamParser()
    assert [parser.feed(piece) for piece in ("language", " Chin", "ese<asr", "_te")] == ["", "", "", ""]
    assert parser.language is None
    assert parser.feed("xt>你") == "你"
    assert parser.language == "Chinese"
    assert parser.feed("好") == "好"
    assert parser.flush() == ""


def test_output_without_a_tag_comes_out_at_the_end() -> None:
    parser = StreamParser()
    assert parser.feed("你好") == ""
    assert parser.flush() == "你好"
    assert parser.language == ""


@pytest.mark.parametrize(
    ("language", "chinese"),
    [
        ("Chinese", True),
        ("Cantonese", True),
        ("English,Chinese", True),
        ("English", False),
        ("", False),
        (None, False),
    ],
)
def test_text_conversions_apply_to_chinese_only(language: str | None, chinese: bool) -> None:
    assert is_chinese(language) is chinese
