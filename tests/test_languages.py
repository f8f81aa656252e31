"""Languages by name and by code."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from qwen3asr_native import LanguageError, Model
from qwen3asr_native.languages import NAMES, code_of, name_of, resolve

KNOWN = sorted(NAMES.values())


@pytest.mark.parametrize("code", sorted(NAMES))
def test_every_code_and_every_name_is_known_in_any_case(code: str) -> None:
    name = NAMES[code]
    for written in (code, code.upper(), name, name.upper(), f" {name.lower()} ", f"{code}-XX", f"{code}_xx"):
        assert resolve(written, KNOWN) == name
    assert code_of(name.upper()) == code


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("zh-TW", "Chinese"), ("zh-Hant-TW", "Chinese"), ("cmn", "Chinese"), ("zh-HK", "Cantonese"), ("yue-HK", "Cantonese"),
        ("en-GB", "English"), ("pt_BR", "Portuguese"), ("jpn", "Japanese"), ("tl", "Filipino"), ("farsi", "Persian"),
    ],
)  # fmt: skip
def test_what_people_write_is_understood(written: str, name: str) -> None:
    assert name_of(written) == name


def test_a_model_of_fewer_languages_says_which_it_knows() -> None:
    with pytest.raises(LanguageError, match=r"'sw'.*Chinese \(zh\), English \(en\)"):
        resolve("sw", ["Chinese", "English"])
    with pytest.raises(LanguageError, match="Klingon"):
        resolve("Klingon", KNOWN)
    assert resolve("klingon", ["Klingon"]) == "Klingon"


def test_a_model_takes_codes(model_file: Path, tone: np.ndarray) -> None:
    with Model(model_file) as model:
        for written in ("zh", "ZH-tw", "chinese"):
            assert model.transcribe(tone, written, sample_rate=16000, max_new_tokens=2).language == "Chinese"
