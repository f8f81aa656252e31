"""From token bytes to text: whole characters, the language taken off, pieces joined."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen3asr_native.assembly import SegmentReader, join
from qwen3asr_native.audio import Piece
from qwen3asr_native.engine import Event

PIECE = Piece(0, np.zeros(16000, np.float32))


def read(chunks: list[bytes], forced: str | None = None, finish: str = "stop") -> list[str]:
    reader = SegmentReader(PIECE, forced)
    return [*(reader.feed(Event(0, 1, 0.0, False, chunk)) for chunk in chunks), reader.flush(finish)]


def cut(content: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({0, len(content), *(place % (len(content) + 1) for place in places)})
    return [content[begin:end] for begin, end in zip(edges, edges[1:])]


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=30), st.lists(st.integers(0, 10_000)))
def test_text_arrives_whole_however_it_is_cut(text: str, places: list[int]) -> None:
    text = f"零{text}九"
    pieces = read(cut(f"language Chinese<asr_text>{text}".encode(), places))
    assert "".join(pieces) == text
    assert "\ufffd" not in "".join(pieces) or "\ufffd" in text


@pytest.mark.parametrize("missing", [1, 2])
def test_half_a_character_at_the_end_is_dropped(missing: int) -> None:
    content = "language Chinese<asr_text>九零".encode()[:-missing]
    assert "".join(read([content], finish="length")) == "九"


@pytest.mark.parametrize("finish", ["abort", "length"])
def test_an_answer_that_is_cut_before_its_text_has_none(finish: str) -> None:
    assert "".join(read([b"language Chi"], finish=finish)) == ""
    assert "".join(read([b"language Chi"], finish="stop")) == "language Chi"
    assert "".join(read([b"language Chinese<asr_text>one"], finish=finish)) == "one"


def test_a_character_comes_with_the_token_that_completes_it() -> None:
    first, second = "九".encode()[:2], "九".encode()[2:]
    assert read([b"language Chinese", b"<asr_text>", first, second]) == ["", "", "", "九", ""]


def test_a_forced_language_makes_everything_text_but_a_leading_tag() -> None:
    assert "".join(read([b"one", b" two"], "English")) == "one two"
    assert "".join(read([b"<asr_text>", b"one", b" two"], "English")) == "one two"


def test_pieces_are_joined_as_their_writing_wants() -> None:
    assert join(["one two", "three", "", "four"]) == "one two three four"
    assert join(["零九", "零零。", "七"]) == "零九零零。七"
    assert join(["서울", "부산"]) == "서울 부산"
    assert join(["", ""]) == ""
