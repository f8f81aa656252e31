"""Inverse text normalization: every case, and what must hold for any text."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen3asr_native.text.itn import grammar, normalize, normalize_with_offsets, numbers, tokens
from qwen3asr_native.text.itn.__main__ import run_filter
from qwen3asr_native.text.itn.cases import read_cases
from qwen3asr_native.text.itn.stream import StreamNormalizer
from qwen3asr_native.text.itn.table import table
from qwen3asr_native.text.script import ScriptConverter

ROOT = Path(__file__).resolve().parent.parent
CASE_FILES = sorted((ROOT / "tests" / "data" / "itn").glob("*.tsv"))
CASES = [case for path in CASE_FILES for section in read_cases(path) for case in section.cases]
CONVENTIONS = ROOT.parent / "shared" / "itn" / "examples.tsv"


@pytest.mark.parametrize(("spoken", "written"), CASES)
def test_numbers_are_written_as_people_write_them(spoken: str, written: str) -> None:
    assert normalize(spoken) == written


@pytest.mark.skipif(
    not CONVENTIONS.exists(), reason="the sample of conventions lies beside the development checkout"
)
def test_all_sample_conventions_hold() -> None:
    cases = [case for section in read_cases(CONVENTIONS) for case in section.cases]
    assert [(spoken, normalize(spoken)) for spoken, _ in cases] == cases


def test_simplified_text_is_normalized_like_traditional_text() -> None:
    simplified = ScriptConverter("t2s")
    for spoken, written in CASES:
        if simplified.convert(spoken) != spoken:  # else it is the same text: 三兆二 -> 3兆2000億
            assert normalize(simplified.convert(spoken)) == simplified.convert(written)


_numerals = list("零〇一二三四五六七八九十百千萬億兆兩幺么")
_around = list("點分之比到至負第年月日號個人克米時秒半多幾又每元塊樓成度a5/.% ，是這什加")
_words = "百分之 千克 千米 千米每小時 民國 分機 下午 星期一 km g 12 三七二十一 萬一 分鐘 等於 段 勝 敗 巷 、 廿 卅 億 塊 等 年代 百分點 分之前"
_text = st.lists(st.sampled_from([*_numerals, *_around, *_words.split()]), max_size=12).map("".join)


@given(_text)
@settings(max_examples=1500, deadline=None)
def test_normalizing_twice_changes_nothing_more(text: str) -> None:
    once = normalize(text)
    assert normalize(once) == once


def test_the_cases_are_stable() -> None:
    for _, written in CASES:
        assert normalize(written) == written


_stream_text = st.lists(
    st.one_of(
        st.sampled_from([case.spoken for case in CASES]),
        _text,
        st.sampled_from(["我", "，", " ok ", "在家", "什么"]),
    ),
    max_size=4,
).map("".join)


@given(_stream_text, st.data())
@settings(max_examples=500, deadline=None)
def test_streamed_pieces_add_up_to_the_normalized_text(text: str, data: st.DataObject) -> None:
    cuts = data.draw(st.lists(st.integers(0, len(text)), max_size=len(text)))
    places = [0, *sorted(cuts), len(text)]
    stream = StreamNormalizer()
    pieces = [stream.feed(text[start:stop]) for start, stop in zip(places, places[1:])]
    assert "".join(pieces) + stream.flush() == normalize(text)


def test_two_percentages_that_would_run_together_come_to_an_end() -> None:
    assert normalize("百分之三點五十百分之三點五") == "百分之三點50百分之3.5"


@pytest.mark.parametrize("text", ["升溫二度我家", "收到九份文件"])
def test_a_stream_remembers_what_stands_before_a_word(text: str) -> None:
    """升溫二度 is a measure, and 二度 alone may be "again": the words before it are not let go too soon."""
    stream = StreamNormalizer()
    assert "".join(map(stream.feed, text)) + stream.flush() == normalize(text)


def test_a_stream_does_not_read_a_long_number_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    read = 0

    def counting_tokenize(text: str) -> list[tokens.Token]:
        nonlocal read
        read += len(text)
        return tokens.tokenize(text)

    monkeypatch.setattr("qwen3asr_native.text.itn.stream.tokenize", counting_tokenize)
    normalizer = StreamNormalizer()
    given_so_far = "".join(normalizer.feed(char) for char in "他說" + "一" * 1000 + "，好")
    assert given_so_far + normalizer.flush() == "他說" + "1" * 1000 + "，好"
    assert read < 50_000  # of 500 000 characters if each piece read all


def test_a_stream_gives_numbers_as_soon_as_they_are_complete() -> None:
    stream = StreamNormalizer()
    assert [stream.feed(char) for char in "他今年三十"] == ["他", "", "", "", ""]
    assert [stream.feed(char) for char in "歲，他說"] == ["", "今年30歲，", "他", ""]
    assert stream.flush() == "說"


@given(_text)
@settings(max_examples=500, deadline=None)
def test_offsets_lead_back_to_the_source(text: str) -> None:
    result = normalize_with_offsets(text)
    place = source_place = 0
    for start, stop, source_start, source_stop, changed in result.spans:
        assert (start, source_start) == (place, source_place)
        assert changed or result.text[start:stop] == text[source_start:source_stop]
        assert result.source_range(start, stop) == (source_start, source_stop)
        place, source_place = stop, source_stop
    assert (place, source_place) == (len(result.text), len(text))


def test_a_number_maps_to_its_spoken_form() -> None:
    source = "電話零九一二三四五六七八分機一二三"
    result = normalize_with_offsets(source)
    place = result.text.rindex("123")
    start, stop = result.source_range(place, place + 3)
    assert source[start:stop] == "一二三"
    start, stop = result.source_range(0, 3)
    assert source[start:stop] == "電話零九一二三四五六七八"


def test_an_empty_range_has_no_source() -> None:
    with pytest.raises(ValueError, match=r"no text at \[1:1\] in a text of 2 characters"):
        normalize_with_offsets("十一").source_range(1, 1)


@given(st.text(st.characters(exclude_characters="".join(_numerals)), max_size=60))
def test_text_without_numerals_stays(text: str) -> None:
    assert normalize(text) == text


class _CountingTokens(list):  # type: ignore[type-arg]
    """Counts how often the grammar looks at a token."""

    looks = 0

    def __getitem__(self, place):  # type: ignore[no-untyped-def]
        self.looks += 1
        return super().__getitem__(place)


def _work(text: str) -> int:
    counted = _CountingTokens(tokens.tokenize(text))
    grammar.parse(numbers.Source(counted))
    return counted.looks


@pytest.mark.parametrize(
    "unit",
    [
        "一",
        "十",
        "一百",
        "一年",
        "一比",
        "一點",
        "三到",
        "一加",
        "百分之",
        "二又",
        "三分之",
        "萬",
        "十萬",
        "負",
        "兩小時",
        "一千兩百元，",
        "一、",
        "第一、",
        "三、四十",
        "廿",
        "五億",
        "三兩",
        "一點七五千克",
        "五零六零年代",
        "一百幾十",
    ],
)
def test_work_grows_with_the_length_of_the_text(unit: str) -> None:
    assert _work(unit * 2000) < 2.5 * _work(unit * 1000)


def test_the_filter_answers_line_by_line() -> None:
    command = [sys.executable, "-u", "-m", "qwen3asr_native.text.itn"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT / "tests"
    ) as process:
        assert process.stdin and process.stdout
        for spoken, written in (("零九零零零七三三三一", "0900073331"), ("兩個人", "兩個人")):
            process.stdin.write(f"{spoken}\n".encode())
            process.stdin.flush()
            assert process.stdout.readline().decode() == f"{written}\n"


def test_the_filter_keeps_line_ends() -> None:
    out = io.StringIO()
    run_filter(io.StringIO("二十\r\n\n三十", newline=""), out)
    assert out.getvalue() == "20\r\n\n30"


def test_the_table_in_the_documentation_is_up_to_date() -> None:
    page = table(read_cases(ROOT / "tests" / "data" / "itn" / "taiwan.tsv"))
    assert (ROOT / "docs" / "itn.md").read_text(encoding="utf-8") == page


def test_a_malformed_line_of_cases_is_named(tmp_path: Path) -> None:
    path = tmp_path / "cases.tsv"
    path.write_text("# Section\n二十 20\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"cases.tsv, line 2: expected"):
        read_cases(path)


@settings(max_examples=300, deadline=None)
@given(
    st.text(
        "負负百千分之零幾几多点點一二三十萬万億兆比又第到至加等於年月日時时分秒元度勝負廿○幺么兩、高長Aa1%",
        max_size=24,
    )
)
def test_no_text_raises_and_what_is_written_stays(text: str) -> None:
    written = normalize(text)
    assert normalize(written) == written
