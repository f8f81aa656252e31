"""What users pass: one rule for each kind of value, and one sentence for what is none."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from qwen3asr_native import ArgumentError, AudioError, ModelFileError, OutOfMemoryError, arguments


def test_the_context_may_be_missing_a_text_or_a_list_of_words() -> None:
    assert arguments.context(None) == ""
    assert arguments.context("PostgreSQL, Taipei") == "PostgreSQL, Taipei"
    assert arguments.context(["PostgreSQL", " Taipei ", ""]) == "PostgreSQL, Taipei"
    assert arguments.context({"b", "a"}) == arguments.context(("a", "b")) == "a, b"


@pytest.mark.parametrize("value", [7, b"bytes", ["good", 7], "zero\0", "\udce9", object(), {"a": "b"}])
def test_what_is_no_context_gets_a_sentence(value: object) -> None:
    with pytest.raises(ArgumentError, match="context"):
        arguments.context(value)


def test_a_language_is_one_name() -> None:
    assert arguments.language(None) is None
    assert arguments.language("Chinese") == "Chinese"
    for value in (["Chinese", "English"], 7, b"Chinese", True):
        with pytest.raises(ArgumentError, match="language"):
            arguments.language(value)


@pytest.mark.parametrize("value", [5, np.int64(5), np.uint8(5), np.array(5)])
def test_whole_numbers_of_any_type_are_whole_numbers(value: object) -> None:
    number = arguments.whole(value, "max_new_tokens")
    assert (number, type(number)) == (5, int)


@pytest.mark.parametrize(
    "value", [0, -1, 1 << 40, 5.0, "5", True, np.bool_(True), None, [5], np.array([5, 6]), float("nan")]
)
def test_what_is_no_whole_number_of_at_least_one_gets_a_sentence(value: object) -> None:
    with pytest.raises(ArgumentError, match=r"max_new_tokens must be a whole number"):
        arguments.whole(value, "max_new_tokens")
    assert arguments.optional_whole(None, "max_new_tokens") is None


@pytest.mark.parametrize("value", [30, 30.0, np.float32(30), np.int16(30)])
def test_numbers_of_any_type_are_numbers(value: object) -> None:
    assert arguments.number(value, "chunk_seconds", 1, 1200) == 30.0


@pytest.mark.parametrize(
    "value", [None, "30", b"30", float("nan"), float("inf"), 0.5, 1e9, True, [30], 1 + 2j]
)
def test_what_is_no_number_within_the_limits_gets_a_sentence(value: object) -> None:
    with pytest.raises(ArgumentError, match="chunk_seconds must be"):
        arguments.number(value, "chunk_seconds", 1, 1200)


def test_a_text_is_neither_true_nor_false() -> None:
    assert arguments.truth(np.bool_(True), "itn") is True
    assert arguments.truth(False, "itn") is False
    for value in ("no", 1, None, []):
        with pytest.raises(ArgumentError, match="itn must be True or False"):
            arguments.truth(value, "itn")


def test_a_choice_names_what_there_is() -> None:
    assert arguments.choice("full", "attention", ("window", "full")) == "full"
    for value in ("Full", None, 7, "\ud800"):
        with pytest.raises(ArgumentError, match="attention must be 'window' or 'full'"):
            arguments.choice(value, "attention", ("window", "full"))


def test_paths_are_texts_or_path_objects(tmp_path: Path) -> None:
    assert arguments.path(tmp_path, "path") == str(tmp_path)
    assert arguments.path("not there yet.bin", "path") == "not there yet.bin"


@pytest.mark.parametrize("value", [b"model.bin", 7, None, "", "a\0b", ["model.bin"]])
def test_what_is_no_path_gets_a_sentence(value: object) -> None:
    with pytest.raises(ArgumentError, match="path_or_name"):
        arguments.path(value, "path_or_name")


@pytest.mark.skipif(os.name != "posix", reason="names of other systems have other limits")
@pytest.mark.parametrize("value", ["a" * 5000, "/".join(["abc"] * 5000), "\ud800"])
def test_what_no_file_can_be_called_gets_a_short_sentence(value: str) -> None:
    with pytest.raises(ArgumentError, match="path_or_name") as caught:
        arguments.path(value, "path_or_name")
    assert len(str(caught.value)) < 250


def test_a_value_that_cannot_be_shown_is_named_by_its_type() -> None:
    class Odd:
        def __repr__(self) -> str:
            raise RuntimeError

    with pytest.raises(ArgumentError, match="Odd"):
        arguments.whole(Odd(), "batch")
    with pytest.raises(ArgumentError) as caught:
        arguments.whole("9" * 10_000, "batch")
    assert len(str(caught.value)) < 200


def test_the_sentence_of_an_error_can_be_encoded_whatever_name_it_quotes() -> None:
    for kind in (AudioError, ModelFileError, OutOfMemoryError, ArgumentError):
        sentence = str(kind("'caf\udce9\ud800.wav' does not exist"))
        assert sentence.encode() == rb"'caf\udce9\ud800.wav' does not exist"
    assert str(AudioError()) == ""
    assert pickle.loads(pickle.dumps(AudioError("'\udce9'"))).args == (r"'\udce9'",)
