"""Script conversion: equal to OpenCC's, in pieces as in one, and no character held without need."""

from __future__ import annotations

import subprocess
import sys
from collections import defaultdict
from itertools import accumulate

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opencc import OpenCC

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
VARIANTS = available_variants()
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


@st.composite
def _pieces(draw: st.DrawFn, texts: st.SearchStrategy[str]) -> list[str]:
    text = draw(texts)
    cuts = draw(st.lists(st.integers(0, len(text)), max_size=len(text)))
    places = [0, *sorted(cuts), len(text)]
    return [text[start:stop] for start, stop in zip(places, places[1:])]


@given(st.sampled_from(VARIANTS), _difficult_text)
@settings(max_examples=400, deadline=None)
def test_a_whole_text_converts_as_opencc_does(variant: str, text: str) -> None:
    assert ScriptConverter(variant).convert(text) == REFERENCE[variant].convert(text)


@given(st.sampled_from(VARIANTS), _pieces(st.one_of(_sentence, _difficult_text)))
@settings(max_examples=400, deadline=None)
def test_pieces_add_up_to_the_conversion_of_the_whole(variant: str, pieces: list[str]) -> None:
    converter = ScriptConverter(variant)
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
    converter = ScriptConverter(variant)
    certain = converter.feed(text)
    whole = converter.convert(text)
    if certain == whole:
        return False
    with_next = whole[: len(certain) + 1]
    forms = (text, ScriptConverter("s2t").convert(text))  # later stages see Traditional text
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
    converter = ScriptConverter("zh-TW")
    fed = certain = ""
    for piece in pieces:
        fed += piece
        certain += converter.feed(piece)
        assert len(converter.convert(fed)) - len(certain) < 165


def test_a_phrase_across_pieces_becomes_the_taiwan_word() -> None:
    converter = ScriptConverter("zh-TW")
    assert converter.feed("软") == "軟"
    assert converter.feed("件") + converter.flush() == "體"


def test_real_text_hardly_waits() -> None:
    converter = ScriptConverter("zh-TW")
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
    assert ScriptConverter("zh-TW").feed(text) == text[: len(text) - len(held)]


def test_punctuation_releases_what_is_held() -> None:
    converter = ScriptConverter("zh-TW")
    assert converter.feed("干") == ""
    assert converter.feed("。") == "幹。"


def test_a_converter_can_be_used_again_after_flush() -> None:
    converter = ScriptConverter("zh-TW")
    for _ in range(2):
        assert converter.feed("头发") + converter.flush() == "頭髮"


def test_an_unknown_variant_is_refused_with_the_names_to_choose_from() -> None:
    with pytest.raises(ValueError, match=r"unknown script variant 's2x': choose one of .*s2twp.*zh-TW"):
        ScriptConverter("s2x")


def test_importing_the_module_loads_neither_opencc_nor_its_dictionaries() -> None:
    code = "import sys, qwen3asr_native.text.script; assert 'opencc' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
