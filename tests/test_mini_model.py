"""The built-in model on real speech: the sample of the README, and the clips that ship with their texts."""

from __future__ import annotations

import csv
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from conftest import ROOT

import qwen3asr_native
from qwen3asr_native import Model

SAMPLE = ROOT / "samples" / "phone-number-zh-TW.wav"
CLIPS = ROOT / "tests" / "data" / "clips"
PEOPLE = ROOT / "samples" / "people"
# tests/data/clips/README.md states what the model reaches; these bounds leave room for one more clip.
MOST_WRONG_CLIPS = 3
HIGHEST_ERROR_RATE = 0.012


def clips() -> list[dict[str, str]]:
    with open(CLIPS / "clips.tsv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def edit_distance(expected: Sequence[str], heard: Sequence[str]) -> int:
    row = list(range(len(heard) + 1))
    for i, wanted in enumerate(expected, 1):
        previous, row[0] = row[0], i
        for j, found in enumerate(heard, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (wanted != found))
    return row[-1]


def word_distance(expected: str, heard: str) -> int:
    return edit_distance(expected.split(), heard.split())


@pytest.fixture(scope="module")
def heard(model_file: Path) -> dict[str, tuple[str, str]]:
    """What the float32 kernels hear: file -> language, text."""
    with Model(model_file, kernels="generic") as model:
        results = {clip["file"]: model.transcribe(CLIPS / clip["file"]) for clip in clips()}
    return {file: (result.language, result.text) for file, result in results.items()}


def test_the_sample_is_heard_to_the_last_digit() -> None:
    with Model() as model:
        result = model.transcribe(SAMPLE, script="zh-TW", itn=True)
    assert result.text == SAMPLE.with_suffix(".txt").read_text(encoding="utf-8").strip()
    assert result.language == "Chinese"


def test_the_command_line_prints_the_samples_digits() -> None:
    command = [
        sys.executable,
        "-m",
        "qwen3asr_native",
        "transcribe",
        "--script",
        "zh-TW",
        "--itn",
        str(SAMPLE),
    ]
    printed = subprocess.run(command, capture_output=True, text=True, cwd=ROOT / "tests", check=True)
    assert printed.stdout == "0900073331\n"
    assert printed.stderr.count("\n") == 1 and "mini" in printed.stderr


def test_clips_are_heard_as_the_model_card_says(heard: dict[str, tuple[str, str]]) -> None:
    wrong, errors, characters = [], 0, 0
    for clip in clips():
        distance = edit_distance(clip["text"], heard[clip["file"]][1])
        errors, characters = errors + distance, characters + len(clip["text"])
        if distance:
            wrong.append((clip["file"], clip["text"], heard[clip["file"]][1]))
    assert len(wrong) <= MOST_WRONG_CLIPS, wrong
    assert errors / characters <= HIGHEST_ERROR_RATE, wrong


@pytest.mark.parametrize("kernels", [None, "generic"])
def test_people_are_heard_as_their_page_says(kernels: str | None) -> None:
    """samples/people/README.md: 15 of 16 digits, and nothing where no number is said."""
    with open(PEOPLE / "people.tsv", encoding="utf-8", newline="") as file:
        people = list(csv.DictReader(file, delimiter="\t"))
    with Model(kernels=kernels) as model:
        texts = {person["path"]: model.transcribe(PEOPLE / person["path"]).text for person in people}
    wrong = sum(word_distance(person["text"], texts[person["path"]]) for person in people)
    assert len(people) == 5 and sum(len(person["text"].split()) for person in people) == 16
    assert wrong <= 2, texts
    assert texts["ordinary.flac"] == ""


def test_nothing_is_heard_where_nobody_speaks(heard: dict[str, tuple[str, str]]) -> None:
    silent = [clip["file"] for clip in clips() if not clip["language"]]
    assert silent
    assert [heard[file] for file in silent] == [("", "")] * len(silent)


@pytest.mark.parametrize("kernels", [name for name in qwen3asr_native.kernel_sets() if name != "generic"])
def test_fast_kernels_hear_the_same(
    model_file: Path, kernels: str, heard: dict[str, tuple[str, str]]
) -> None:
    with Model(model_file, kernels=kernels) as model:
        results = {file: model.transcribe(CLIPS / file) for file in heard}
    assert {file: (result.language, result.text) for file, result in results.items()} == heard
