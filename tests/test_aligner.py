"""When words are said: splitting, the pass of the forced aligner, repaired times, words of transcripts."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import soundfile

from qwen3asr_native import (
    Aligner,
    ArgumentError,
    AudioError,
    ContextLengthError,
    Model,
    ModelFileError,
    Word,
)
from qwen3asr_native._native import ffi, lib
from qwen3asr_native.aligner import _korean_tokenizer, split
from qwen3asr_native.audio import load
from qwen3asr_native.engine import ATTENTION
from qwen3asr_native.files.convert import convert
from qwen3asr_native.text.offsets import carried
from qwen3asr_native.text.written import written

if TYPE_CHECKING:
    from collections.abc import Iterator

REFERENCE = Path(__file__).parent / "data" / "reference"


def _rows(name: str) -> list[list[str]]:
    lines = (REFERENCE / name).read_text(encoding="utf-8").splitlines()
    return [line.split("\t") for line in lines if not line.startswith("#") and "ERROR" not in line]


@pytest.fixture(scope="module")
def aligner(aligner_file: Path) -> Iterator[Aligner]:
    with Aligner(aligner_file, threads=1) as aligner:
        yield aligner


@pytest.mark.parametrize("row", _rows("aligner-split.tsv"))
def test_texts_are_split_as_the_official_code_splits_them(row: list[str]) -> None:
    text, wanted = json.loads(row[1]), json.loads(row[2])
    try:
        units = split(text, row[0])
    except ArgumentError as error:
        assert row[0] in ("Japanese", "Korean")
        pytest.skip(str(error))
    assert [unit.text for unit in units] == wanted
    if row[0] == "Japanese":  # its library writes some characters in full width
        text = unicodedata.normalize("NFKC", text)
        assert "".join(wanted) == "".join(c for c in text if unicodedata.category(c)[0] in "LN" or c == "'")
        return
    for unit in units:
        said = text[unit.offset : unit.end_offset]
        assert unit.text == "".join(c for c in said if c == "'" or unicodedata.category(c)[0] in "LN")


def test_chatllms_own_way_splits_texts_the_same(aligner_file: Path, tone: np.ndarray, tmp_path: Path) -> None:
    """Text and audio in one message, the answer in one chunk: each Chinese character or other word with its times."""
    sound = tmp_path / "tone.wav"
    soundfile.write(sound, tone, 16000)
    printed: list[tuple[int, str]] = []

    @ffi.callback("void(void *, int, const char *)")
    def on_print(_: object, kind: int, text: object) -> None:
        printed.append((kind, ffi.string(text).decode()))

    model = lib.chatllm_create()
    words = ["-m", str(aligner_file), "--multimedia_file_tags", "<<", ">>", "--set", "format", "json"]
    for word in words:
        lib.chatllm_append_param(model, word.encode())
    assert lib.chatllm_start(model, on_print, ffi.NULL, ffi.NULL) == 0
    for row in _rows("aligner-split.tsv"):
        text, wanted = json.loads(row[1]), json.loads(row[2])
        if row[0] in ("Japanese", "Korean") or "\0" in text:
            continue
        printed.clear()
        assert lib.chatllm_user_input(model, f"<<audio:{sound}>>{text}".encode()) == 0
        assert [kind for kind, _ in printed] == [lib.PRINT_CHAT_CHUNK]
        pieces = json.loads(printed[0][1])
        assert [piece["text"] for piece in pieces] == wanted
        times = [piece[name] for piece in pieces for name in ("start", "end")]
        assert times == sorted(times)
        assert all(0 <= time <= len(tone) / 16 for time in times)
    assert lib.chatllm_destroy(model) == 0


@pytest.mark.parametrize("row", _rows("aligner-repair.tsv"))
def test_times_are_repaired_as_the_official_code_repairs_them(row: list[str]) -> None:
    raw, wanted = json.loads(row[0]), json.loads(row[1])
    times = ffi.new("double[]", raw)
    assert lib.chatllm_asr_repair_times(times, len(raw)) == 0
    assert list(times) == wanted


def test_repaired_times_never_decrease() -> None:
    chance = random.Random(1)
    for _ in range(300):
        raw = [float(chance.randrange(0, 40) * 80) for _ in range(chance.randrange(1, 60))]
        times = ffi.new("double[]", raw)
        assert lib.chatllm_asr_repair_times(times, len(raw)) == 0
        assert list(times) == sorted(times)
        assert min(raw) <= times[0]
        assert times[len(raw) - 1] <= max(raw)


@pytest.mark.parametrize("attention", ["window", "full"])
@pytest.mark.parametrize("clip", ["g6-zh", "g6-mixed", "g21-zh", "g21-mixed"])
def test_scores_and_times_are_those_of_the_official_code(golden: Path, clip: str, attention: str) -> None:
    reference = np.load(golden / "aligner" / f"{clip}.npz")
    pcm = load(golden / f"{clip.partition('-')[0]}.wav")
    units = split(str(reference["text"]), str(reference["language"]))
    with Aligner(golden / "aligner" / "aligner-f16.bin", kernels="generic") as aligner:
        scores = aligner._scores(pcm, units, ATTENTION[attention])
        times = aligner._times(pcm, units, ATTENTION[attention])
    wanted = reference[f"{attention}_logits"]
    assert np.sqrt(np.square(scores - wanted).mean() / np.square(wanted).mean()) < 1e-4
    assert np.array_equal(scores.argmax(axis=1), reference[f"{attention}_raw"])
    assert np.array_equal(times, reference[f"{attention}_ms"])


def test_fast_kernels_give_nearly_all_times_of_the_official_code(golden: Path) -> None:
    near = []
    for clip in ("g6-zh", "g6-mixed", "g21-zh", "g21-mixed"):
        reference = np.load(golden / "aligner" / f"{clip}.npz")
        units = split(str(reference["text"]), str(reference["language"]))
        with Aligner(golden / "aligner" / "aligner-f16.bin") as aligner:
            scores = aligner._scores(
                load(golden / f"{clip.partition('-')[0]}.wav"), units, ATTENTION["window"]
            )
        near.append(np.abs(scores.argmax(axis=1) - reference["window_raw"]) <= 1)
    assert np.concatenate(near).mean() > 0.95


@pytest.mark.parametrize(
    "kind", ["f16", "q8_0"]
)  # Q4_0 differs where a block is all zeros: the other divides by 0
def test_a_converted_aligner_has_the_bytes_of_chatllms_converter(
    golden: Path, tmp_path: Path, kind: str
) -> None:
    out = convert(golden / "aligner" / "hf", tmp_path / "aligner.bin", kind, name="tiny-aligner")
    assert out.read_bytes() == (golden / "aligner" / f"aligner-{kind}.bin").read_bytes()


def test_any_text_over_any_audio_gives_ordered_times_inside_it(aligner: Aligner) -> None:
    chance = random.Random(2)
    alphabet = "aZ é'’-<>|你好ー한🙂\u0301\u200b\u3000\n\t,。½9"
    kinds = {
        "noise": lambda n: np.random.default_rng(n).standard_normal(n) * 0.1,
        "silence": np.zeros,
        "late": lambda n: np.where(np.arange(n) > n * 0.7, np.sin(np.arange(n) * 0.2), 0),
    }
    for turn in range(30):
        text = "".join(chance.choice(alphabet) for _ in range(chance.randrange(0, 50)))
        pcm = kinds[chance.choice(list(kinds))](chance.choice([160, 161, 1000, 8000, 16001, 40000])).astype(
            np.float32
        )
        words = aligner.align((pcm, 16000), text, chance.choice([None, "zh", "en", "yue", "Thai"]))
        times = [time for word in words for time in (word.start, word.end)]
        assert times == sorted(times), turn
        assert all(0 <= time <= len(pcm) / 16000 for time in times)
        assert len(words) == len(split(text))
        assert all(word.text == text[word.offset : word.end_offset] for word in words)


NOTHING_SAID = [
    "",
    "  \n",
    "。，！?",
    "🙂🙂",
    "<>|",
    "\u0301",
    "\u200b",
    "\0",
    "--- *** ---",
    "٪",
    "()" * 5000,
]
SAID = [
    "你好" * 150,  # far more than fits into the audio
    "word " * 200,
    "x" * 1500,
    "مرحبا بالعالم",
    "नमस्ते दुनिया",
    "สวัสดีชาวโลก",
    "ვეფხისტყაოსანი",
    "Ünïcödé naïve",
    "\U00020000\U0002a6df",
    "a\0b c\ud800d",
    "12:30，3.5%",
    "<timestamp><|im_end|>",
    "👩‍👩‍👧 family 你好 👍",
]


def _sounds() -> dict[str, np.ndarray]:
    chance = np.random.default_rng(7)
    speech = load(REFERENCE / "speech.wav")
    return {
        "10 ms": speech[:160],
        "11 ms": chance.standard_normal(176).astype(np.float32),
        "silence": np.zeros(32000, np.float32),
        "a click": np.eye(1, 16000, 9000, dtype=np.float32)[0],
        "noise": (0.3 * chance.standard_normal(48000)).astype(np.float32),
        "too loud": (40 * chance.standard_normal(16000)).astype(np.float32),
        "tiny": (1e-30 * chance.standard_normal(16000)).astype(np.float32),
        "speech late": np.concatenate([np.zeros(64000, np.float32), speech[:32000]]),
    }


@pytest.mark.parametrize("text", SAID + NOTHING_SAID)
def test_odd_text_over_odd_audio_gives_ordered_times_inside_it(aligner: Aligner, text: str) -> None:
    for turn, (name, pcm) in enumerate(_sounds().items()):
        words = aligner.align((pcm, 16000), text, attention=("window", "full")[turn % 2])
        times = [time for word in words for time in (word.start, word.end)]
        assert times == sorted(times), name
        assert all(0 <= time <= len(pcm) / 16000 for time in times), name
        assert all(text[word.offset : word.end_offset] == word.text for word in words)
        assert bool(words) == (text in SAID)


def test_audio_that_cannot_be_aligned_gets_a_sentence(aligner: Aligner) -> None:
    for pcm, reason in (
        (np.zeros(0, np.float32), "no samples"),
        (np.zeros(159, np.float32), "10 ms"),
        (np.full(16000, np.nan, np.float32), "NaN|not a finite number"),
        (np.full(16000, np.inf, np.float32), "finite|infinite|NaN"),
    ):
        with pytest.raises(AudioError, match=reason):
            aligner.align((pcm, 16000), "a b")


def test_audio_up_to_the_limit_is_aligned(aligner: Aligner) -> None:
    speech = np.resize(load(REFERENCE / "speech.wav"), 400 * 16000)
    words = aligner.align((speech, 16000), "one 二 three")
    assert len(words) == 3
    assert words[-1].end <= 400
    with pytest.raises(ContextLengthError, match="400 s"):
        aligner.align((np.resize(speech, 16000 * 400 + 160), 16000), "one")


def test_markup_in_a_text_is_read_as_words(aligner: Aligner, tone: np.ndarray) -> None:
    words = aligner.align((tone, 16000), "a <timestamp> b <|audio_pad|>", "en")
    assert [word.text for word in words] == ["a", "timestamp", "b", "audio_pad"]


def test_silence_before_and_after_speech_is_not_looked_at(aligner: Aligner) -> None:
    speech = load(REFERENCE / "speech.wav")
    speech = speech[: 16000 * 2] / np.abs(speech).max()
    silence = np.zeros(3 * 16000, np.float32)
    words = aligner.align((np.concatenate([silence, speech, silence]), 16000), "one two three four", "en")
    assert words[0].start >= 2.5
    assert words[-1].end <= 5.7


def test_a_list_of_words_is_aligned_as_it_is(aligner: Aligner, tone: np.ndarray) -> None:
    words = aligner.align((tone, 16000), ["New York", "…", "東京"])
    assert [(word.text, word.offset, word.end_offset) for word in words] == [
        ("New York", 0, 8),
        ("東京", 11, 13),
    ]
    with pytest.raises(ArgumentError, match="list of strings"):
        aligner.align((tone, 16000), ["a", 1])  # type: ignore[list-item]
    with pytest.raises(ArgumentError, match="text must be"):
        aligner.align((tone, 16000), None)  # type: ignore[arg-type]


@pytest.mark.parametrize(("language", "package"), [("ja", "nagisa"), ("Korean", "soynlp")])
def test_a_language_that_needs_a_library_says_which(
    aligner: Aligner, tone: np.ndarray, language: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (package, f"{package}.tokenizer"):
        monkeypatch.setitem(sys.modules, name, None)
    _korean_tokenizer.cache_clear()
    with pytest.raises(ArgumentError, match=f"{package}.*words as a list"):
        aligner.align((tone, 16000), "今日は 안녕", language)


def test_what_is_too_long_is_refused_in_a_sentence(aligner_file: Path, tone: np.ndarray) -> None:
    with Aligner(aligner_file, context_length=60) as aligner:
        with pytest.raises(ContextLengthError, match="context of 60"):
            aligner.align((tone, 16000), "a b c " * 30)
        assert len(aligner.align((tone, 16000), "a b")) == 2
        with pytest.raises(ContextLengthError, match="400 s"):
            aligner.align((np.zeros(401 * 16000, np.float32), 16000), "a")


def test_a_recognizer_is_no_aligner_and_an_aligner_no_recognizer(
    model_file: Path, aligner_file: Path
) -> None:
    with pytest.raises(ModelFileError, match="no forced aligner"):
        Aligner(model_file)
    with pytest.raises(ModelFileError, match="forced aligner"):
        Model(aligner_file)


def test_words_keep_their_times_in_another_writing() -> None:
    words = [Word(c, i * 0.5, i * 0.5 + 0.4, i, i + 1) for i, c in enumerate("我说三百二十软件")]

    def in_script(script: str | None) -> list[Word]:
        return carried(words, written("我说三百二十软件", "Chinese", script=script, itn=True))

    assert [(w.text, w.start, w.end) for w in in_script("zh-TW")] == [
        ("我", 0.0, 0.4),
        ("說", 0.5, 0.9),
        ("320", 1.0, 2.9),
        ("軟體", 3.0, 3.9),
    ]
    assert "".join(w.text for w in in_script(None)) == "我说320软件"


def test_the_command_prints_words_and_times(aligner_file: Path, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("零九, 零零。", encoding="utf-8")
    sample = Path(__file__).parent.parent / "samples" / "phone-number-zh-TW.wav"

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "qwen3asr_native", "align", "--aligner", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, encoding="utf-8", timeout=120, check=False)

    done = run(aligner_file, "--json", sample, tmp_path / "text.txt")
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["text"] for line in done.stdout.splitlines()] == list("零九零零")
    failed = run(aligner_file, sample, tmp_path / "none.txt")
    assert failed.returncode == 1
    assert "none.txt" in failed.stderr
