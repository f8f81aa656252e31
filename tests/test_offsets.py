"""Places through script conversion and number writing: whole words, whole numbers, times that stay."""

from __future__ import annotations

from itertools import accumulate

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen3asr_native.text.itn import normalize
from qwen3asr_native.text.offsets import Derived, Rewriting, carried, composed, unchanged
from qwen3asr_native.text.script import ScriptConverter
from qwen3asr_native.text.written import written
from qwen3asr_native.transcript import Word

_words = "软件 内存 我的 电话 零九零零 一百二十个 百分之三点五 打印机 ， 。 U盘 ok 十 公里 计算机 三点一四 后面 千克 二十五".split()
_text = st.lists(st.sampled_from(_words), max_size=8).map("".join)


@st.composite
def _rewritings(draw: st.DrawFn, source: str) -> Derived:
    """Any step from ``source``; parts may vanish, appear or change."""
    result = Rewriting()
    cuts = sorted(draw(st.sets(st.integers(0, len(source)))) | {0, len(source)})
    for start, stop in zip(cuts, cuts[1:]):
        if draw(st.booleans()):
            result.add(source[start:stop], start, stop, False)
        else:
            result.add(draw(st.text("xyz", max_size=3)), start, stop, True)
    return result.done()


def _check(derived: Derived, source: str) -> None:
    place = source_place = 0
    for start, stop, source_start, source_stop, changed in derived.spans:
        assert (start, source_start) == (place, source_place)
        assert changed or derived.text[start:stop] == source[source_start:source_stop]
        place, source_place = stop, source_stop
    assert (place, source_place) == (len(derived.text), len(source))


@given(st.data(), st.text("abcdef", max_size=12))
@settings(max_examples=500, deadline=None)
def test_steps_compose_without_gaps_and_no_place_is_lost(data: st.DataObject, source: str) -> None:
    first = data.draw(_rewritings(source))
    second = data.draw(_rewritings(first.text))
    both = composed([first, second])
    assert both.text == second.text
    _check(both, source)
    for start in range(len(second.text)):
        wide = second.source_range(start, start + 1)
        if wide[0] < wide[1]:
            inner = first.source_range(*wide)
            start_of_both, stop_of_both = both.source_range(start, start + 1)
            assert start_of_both <= inner[0] and inner[1] <= stop_of_both


@given(st.data(), st.text("abcdef", max_size=12))
@settings(max_examples=200, deadline=None)
def test_a_step_that_changes_nothing_changes_no_place(data: st.DataObject, source: str) -> None:
    step = data.draw(_rewritings(source))
    for both in (step.after(unchanged(source)), unchanged(step.text).after(step)):
        assert [both.source_range(i, i + 1) for i in range(len(step.text))] == [
            step.source_range(i, i + 1) for i in range(len(step.text))
        ]


@given(_text)
@settings(max_examples=200, deadline=None)
def test_written_text_is_that_of_the_two_steps_one_by_one(text: str) -> None:
    derived = written(text, "Chinese", script="zh-TW", itn=True)
    assert derived.text == normalize(ScriptConverter("zh-TW").convert(text))
    _check(derived, text)
    assert written(text, "English", script="zh-TW", itn=True) == unchanged(text)


@given(_text, st.data())
@settings(max_examples=200, deadline=None)
def test_words_keep_their_times_in_their_order(text: str, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)))) | {0, len(text)})
    words = [Word(text[i:j], float(i), float(j), i, j) for i, j in zip(cuts, cuts[1:])]
    derived = written(text, "Chinese", script="zh-TW", itn=True)
    made = carried(words, derived)
    assert "".join(word.text for word in made) == derived.text
    assert all(word.text == derived.text[word.offset : word.end_offset] for word in made)
    times = [time for word in made for time in (word.start, word.end)]
    assert times == sorted(times)
    assert not made or (made[0].start, made[-1].end) == (0.0, float(len(text)))


def test_a_number_spans_what_was_said_and_a_word_both_characters() -> None:
    text = "软件的电话是零九零零，内存"
    words = [
        Word(char, place / 2, place / 2 + 0.5, place, place + 1)
        for place, char in enumerate(text)
        if char != "，"
    ]
    made = carried(words, written(text, "Chinese", script="zh-TW", itn=True))
    assert [(word.text, word.start, word.end) for word in made] == [
        ("軟體", 0.0, 1.0),
        ("的", 1.0, 1.5),
        ("電", 1.5, 2.0),
        ("話", 2.0, 2.5),
        ("是", 2.5, 3.0),
        ("0900", 3.0, 5.0),
        ("記憶體", 5.5, 6.5),
    ]


def test_words_that_lie_outside_of_the_text_are_left_out() -> None:
    assert carried([Word("x", 0.0, 1.0, 3, 4), Word("", 0.0, 1.0, 0, 0)], unchanged("ab")) == []


def test_an_empty_range_is_refused() -> None:
    for ask in (unchanged("ab").source_range, unchanged("ab").result_range):
        with pytest.raises(ValueError, match="no text at"):
            ask(1, 1)


def test_nothing_comes_from_nothing() -> None:
    assert list(accumulate([unchanged("").after(unchanged(""))])) == [Derived("", [])]
