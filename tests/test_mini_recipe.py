"""What of the mini model's recipe needs neither PyTorch nor a synthesizer: sentences, texts, and the error tables."""

from __future__ import annotations

import queue
import random
import re
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import ROOT

from qwen3asr_native.aligner import split

sys.path.append(str(ROOT))  # the recipe is no part of the package
from models.mini import commands, espeak, evaluate, ordinary, phone_numbers, recorded, texts


def recording(folder: Path, name: str) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(str(path), np.zeros(800, np.float32), 8000)


def test_ordinary_sentences_hold_no_number_and_nothing_to_write() -> None:
    digits = set(texts.DIGITS) - {"一"}  # 一 is part of many words that count nothing
    for number in range(2000):
        text = ordinary.sentence(random.Random(number))
        assert text.written == "" and text.spoken.strip()
        assert not digits & set(text.spoken), text
        assert not set(texts.ENGLISH_NUMERALS) & set(text.spoken.lower().replace(",", "").split()), text


def test_every_language_of_ordinary_sentences_has_a_synthesizers_voice() -> None:
    assert set(ordinary.PARTS) == {*ordinary.ESPEAK_VOICES, "Chinese"}
    assert set(ordinary.SHARES) <= set(ordinary.PARTS)


def test_the_table_counts_words_and_characters_by_collection_and_speaker(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = ["en/ann/1.wav\tone two\tEnglish\tsource", "en/bob/1.wav\tnine\tEnglish", "en/bob/2.wav\t\tNone"]
    for line in lines:
        recording(tmp_path, line.split("\t")[0])
    (tmp_path / "en.tsv").write_text("path\ttext\tlanguage\n" + "\n".join(lines) + "\n", encoding="utf-8")
    answers = iter([("English", "one three"), ("English", "nine"), ("Chinese", "五")])
    evaluate.report_recordings(lambda samples: next(answers), [tmp_path / "en.tsv"], list_errors=True)
    printed = capsys.readouterr().out.splitlines()
    assert printed[2:] == [
        "| en | ann | 1 | 50.0 % |  | 50.0 % |  | 0.0 % |",
        "| en | bob | 2 | 0.0 % | 0.0 % |  | 100.0 % | 50.0 % |",
        "| en | all | 3 | 33.3 % | 0.0 % | 50.0 % | 100.0 % | 33.3 % |",
        f"{tmp_path / 'en/ann/1.wav'}: one two -> [English] one three",
        f"{tmp_path / 'en/bob/2.wav'}:  -> [Chinese] 五",
    ]


def test_a_list_from_a_spreadsheet_is_read(tmp_path: Path) -> None:
    """With a byte order mark, line ends of Windows, a heading, and a whole path."""
    recording(tmp_path, "1.wav")
    lines = ["path\ttext\tlanguage", f"{tmp_path / '1.wav'}\tone\tEnglish", ""]
    (tmp_path / "en.tsv").write_bytes("\r\n".join(lines).encode("utf-8-sig"))
    (read,) = evaluate.read_recordings(tmp_path / "en.tsv")
    assert (read.path, read.text, read.language) == (tmp_path / "1.wav", "one", "English")


def test_a_list_that_cannot_be_used_gets_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["evaluate", "model.bin", str(tmp_path / "gone.tsv")])
    monkeypatch.setattr(evaluate, "ggmm_transcriber", lambda path, threads: None)
    with pytest.raises(SystemExit, match=r"models\.mini\.evaluate: .*gone\.tsv"):
        evaluate.main()


def test_recordings_are_read_as_16_khz_mono(tmp_path: Path) -> None:
    soundfile.write(str(tmp_path / "stereo.wav"), np.ones((8000, 2), np.float32) * [0.5, 0.25], 8000)
    samples = evaluate.read_samples(tmp_path / "stereo.wav")
    assert samples.dtype == np.float32 and samples.shape == (16_000,)
    assert np.allclose(samples[4000:12_000], 0.375, atol=0.01)


def test_lists_of_recordings_that_cannot_be_used_are_told_by_line(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("only one column\n", encoding="utf-8")
    with pytest.raises(ValueError, match="line 1: needs path, text and language"):
        evaluate.read_recordings(tmp_path / "a.tsv")
    (tmp_path / "b.tsv").write_text("gone.wav\tone\tEnglish\n", encoding="utf-8")
    with pytest.raises(FileNotFoundError, match=r"line 1: there is no file .*gone\.wav"):
        evaluate.read_recordings(tmp_path / "b.tsv")


def test_english_numbers_are_said_with_known_words_only() -> None:
    for number in range(2000):
        text = texts.english_text(random.Random(number))
        assert text.written and set(text.written.split()) <= set(texts.ENGLISH_WORDS), text
        assert text.spoken.replace(",", "") == text.written


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0, "zero"),
        (19, "nineteen"),
        (80, "eighty"),
        (41_000, "forty one thousand"),
        (1_000_300, "one million three hundred"),
        (12_345, "twelve thousand three hundred forty five"),
    ],
)
def test_english_cardinals(value: int, words: str) -> None:
    said = texts.english_cardinal(value, random.Random(1))
    assert said.replace(" and ", " ") == words


def test_times_are_given_to_the_units_that_the_aligner_reads() -> None:
    for text in ("one two, three", "我的电话是，零九", "it's 3 o'clock… !", "a零 b", "", "«Ünïté» 你好world"):
        wanted = [(unit.text, unit.offset, unit.end_offset) for unit in split(text)]
        assert [tuple(unit) for unit in espeak.units(text)] == wanted


def test_a_unit_without_a_word_of_the_synthesizer_leaves_the_text_without_times() -> None:
    spans = [espeak.Span(0, 0.0, 0.2), espeak.Span(4, 0.25, 0.5)]
    assert espeak.unit_times("one two", spans) == [("one", 0.0, 0.2), ("two", 0.25, 0.5)]
    assert espeak.unit_times("one two three", spans) is None


def _command(
    path: Path, seed: int, *, seconds: float = 0.4, level: float = 0.3, frequency: float = 200
) -> None:
    """A second of faint noise with a louder sound in it."""
    samples = np.random.default_rng(seed).normal(0, 0.002, 16_000)
    sound = slice(int(0.3 * 16_000), int((0.3 + seconds) * 16_000))
    samples[sound] += level * np.sin(2 * np.pi * frequency * np.arange(16_000)[sound] / 16_000)
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(str(path), samples.astype(np.float32), 16_000, subtype="PCM_16")


def test_a_word_is_cut_out_of_its_recording(tmp_path: Path) -> None:
    _command(tmp_path / "one" / "a_nohash_0.wav", 1)
    for margin in (0.0, 0.1):
        cut = commands.word(tmp_path / "one" / "a_nohash_0.wav", margin)
        assert cut is not None
        assert abs(cut.size / 16_000 - 0.4 - 2 * margin) < 0.06


@pytest.mark.parametrize("fault", [{"level": 0.0}, {"seconds": 0.02}])
def test_a_recording_without_a_word_is_left_out(fault: dict[str, float], tmp_path: Path) -> None:
    _command(tmp_path / "a_nohash_0.wav", 2, **fault)
    assert commands.word(tmp_path / "a_nohash_0.wav", 0.0) is None


def _frequencies(samples: np.ndarray, known: list[float]) -> set[float]:
    """Which of the ``known`` frequencies sound in some tenth of a second."""
    found = set()
    for start in range(0, samples.size - 1600, 800):
        piece = samples[start : start + 1600].astype(float)
        spectrum = np.abs(np.fft.rfft(piece * np.hanning(piece.size)))
        if spectrum.max() > 500_000:
            heard = float(spectrum.argmax()) * 10
            found.add(min(known, key=lambda frequency: abs(frequency - heard)))
    return found


def test_recorded_digits_are_alike_often_and_neither_other_words_nor_held_out_speakers_are_written(
    tmp_path: Path,
) -> None:
    names = [name for name in (f"{number:x}" for number in range(60)) if not commands.held_out(name)][:5]
    kept = next(name for name in (f"{number:x}" for number in range(60)) if commands.held_out(name))
    # How high a sound is tells who made it: all but the last of the speakers have said "one", two have said "five".
    frequency = {name: 300.0 * (place + 1) for place, name in enumerate([*names, kept])}
    for name in frequency:
        for word in ["one"] * (name != names[4]) + ["five"] * (name in (*names[:2], kept)) + ["left"]:
            _command(tmp_path / word / f"{name}_nohash_0.wav", 3, frequency=frequency[name])
    clips = list(commands.utterances([tmp_path], 200, 0))
    assert len(clips) == 200
    written = [text.written.split() for text, _ in clips]
    assert {word for words in written for word in words} == {"one", "five"}
    ones, fives = (sum(words == [digit] for words in written) for digit in ("one", "five"))
    assert min(ones, fives) > 0.5 * max(ones, fives)
    speakers = [_frequencies(samples, list(frequency.values())) for _, samples in clips]
    assert all(samples.dtype == np.int16 for _, samples in clips)
    assert frequency[kept] not in set().union(*speakers)
    assert all(len(who) == 1 for who, words in zip(speakers, written) if len(words) < 2)
    assert any(len(who) > 2 for who in speakers)
    assert any(len(who) == 1 for who, words in zip(speakers, written) if len(words) > 4)
    # "left" is heard, from the one who said nothing else too, and never written.
    assert frequency[names[4]] in set().union(*(who for who, words in zip(speakers, written) if not words))


def test_words_that_no_speaker_says_clearly_are_replaced_by_those_that_do(tmp_path: Path) -> None:
    names = [name for name in (f"{number:x}" for number in range(60)) if not commands.held_out(name)][:4]
    for place, name in enumerate(names):
        _command(tmp_path / "six" / f"{name}_nohash_0.wav", 4, level=0.3 if place == 0 else 0.0)
    clips = list(commands.utterances([tmp_path], 20, 1))
    assert len(clips) == 20
    assert all(set(text.written.split()) == {"six"} for text, _ in clips)


def test_telephone_numbers_are_those_of_the_list(tmp_path: Path) -> None:
    """With the zero that a list of numbers loses, "oh" where it is said, and without what nobody read."""
    oh, other = phone_numbers.SAY_OH[0], phone_numbers.OTHER_NUMBERS[0]
    lines = ["Response_ID,file_name,Age,Number"]
    for person, number in (("R_1", "912345678"), (oh, "8005551234"), (other, "8005551234"), ("R_2", "7")):
        lines += [f"{person},audio_data/{folder}/{person}.wav,20,{number}" for folder in ("Names", "Numbers")]
    (tmp_path / "metadata.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    first, second = phone_numbers.recordings(tmp_path)
    assert " ".join(first.words) == "zero nine one two three four five six seven eight"
    assert first.path == tmp_path / "audio_data" / "Numbers" / "R_1.wav"
    assert " ".join(second.words) == "eight oh oh five five five one two three four"
    kept = sum(phone_numbers.held_out(f"R_{number}") for number in range(600))
    assert 70 < kept < 130


def test_a_telephone_number_is_cut_at_its_pauses() -> None:
    rate = phone_numbers.SAMPLE_RATE
    tone = np.sin(np.arange(rate // 2) / 5).astype(np.float32)
    silence = np.zeros(rate // 2, np.float32)
    spans = phone_numbers.sounds(np.concatenate([silence, tone, silence, tone, tone, silence]))
    wanted = [(0.5, 1.0), (1.5, 2.5)]
    assert np.allclose(np.array(spans) / rate, wanted, atol=0.03)
    assert phone_numbers.sounds(silence) == []
    # As many sounds as words: a word each, wherever the aligner believes them.
    assert [words for *_, words in phone_numbers.cut(spans, ["one", "two"], [(0, 0.1)] * 2)] == [
        ("one",),
        ("two",),
    ]
    words = ["one", "two", "three"]
    pieces = phone_numbers.cut(spans, words, [(0.5, 0.9), (1.5, 1.9), (2.0, 2.4)])
    assert [piece[2] for piece in pieces] == [("one",), ("two", "three")]
    # "two" lies half in the second sound, and so nothing is known of it.
    pieces = phone_numbers.cut(spans, words, [(0.5, 0.9), (1.2, 1.8), (2.0, 2.4)])
    assert [piece[2] for piece in pieces] == [("one",)]


def test_recorded_syllables_say_single_digits_strings_and_cardinals() -> None:
    written = [recorded._number(random.Random(number)).written for number in range(400)]
    assert all(text and set(text) <= set(texts.CHINESE_CHARACTERS) for text in written)
    digits = [len(text) for text in written if set(text) <= set(texts.DIGITS)]
    assert digits.count(1) > 40 and sum(count > 5 for count in digits) > 40
    assert sum(bool(set(text) & set("十百千")) for text in written) > 40


def test_digits_that_are_said_one_by_one_have_a_pause_after_each() -> None:
    rng = random.Random(8)
    said = [texts.digits_one_by_one(rng) for _ in range(300)]
    assert {text.language for text in said} == {"Chinese", "English"}
    for text in said:
        units = list(text.written) if text.language == "Chinese" else text.written.split()
        assert 1 <= len(units) <= 8
        assert re.split("[，。]+|[,.] ?", text.spoken.rstrip("。.")) == units


def test_the_mean_of_weights_is_that_of_files_alike_and_no_others(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from models.mini.mean import mean

    def saved(name: str, value: float, size: int = 3, token: str = "a") -> Path:
        weights = {"w": torch.full((size,), value)}
        torch.save({"network": weights, "heads": weights, "tokens": {token: 0}}, tmp_path / name)
        return tmp_path / name

    first, second = saved("first.pt", 1.0), saved("second.pt", 3.0)
    made = mean({first: 0.25, second: 0.75})
    assert made["network"]["w"].tolist() == made["heads"]["w"].tolist() == [2.5] * 3
    assert made["tokens"] == {"a": 0}
    for shares in (
        {first: 0.5, second: 0.6},
        {first: 0.5, saved("longer.pt", 1.0, size=4): 0.5},
        {first: 0.5, saved("other.pt", 1.0, token="b"): 0.5},
    ):
        with pytest.raises(ValueError):
            mean(shares)


def test_training_goes_on_from_a_model_file_with_new_heads_first(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    accelerated = pytest.importorskip("models.mini.accelerated")
    from models.mini import corpus
    from models.mini.recordings import Store

    rng = np.random.default_rng(1)
    said = [texts.Text("English", "one", "one"), texts.Text("Chinese", "五", "五")]
    clips = [(text, rng.integers(-9000, 9000, 9000).astype(np.int16)) for text in said * 4]
    corpus.write(tmp_path / "noise", clips)
    task = accelerated.make_task("recognizer", tmp_path / "checkpoint", 1)
    accelerated.start_weights(ROOT / "models" / "qwen3-asr-mini-q8_0.bin", task)
    before = {name: value.clone() for name, value in task.network.state_dict().items()}
    head = task.heads["ctc"].weight.detach().clone()
    store = Store(torch.device("cpu"), 0.01)
    inbox: queue.Queue = queue.Queue()
    store.listen(lambda name, clips: inbox.put((name, clips)))
    store.add("noise", tmp_path / "noise")
    planned: queue.Queue = queue.Queue()
    for batch, _ in zip(accelerated.Examples(inbox, {"noise": 1.0}, 900, 1, False).batches(), range(2)):
        planned.put(task.prepare(batch))
    accelerated.train(
        task, store, planned, tmp_path, "recognizer", time.time() + 600, 5e-3, 1, steps=2, heads_only=True
    )
    after = task.network.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert not torch.equal(task.heads["ctc"].weight, head)
    again = accelerated.make_task("recognizer", tmp_path / "checkpoint", 2)
    accelerated.start_weights(tmp_path / "recognizer.pt", again)
    assert all(torch.equal(again.network.state_dict()[name], value) for name, value in before.items())
    assert torch.equal(again.heads["ctc"].weight, task.heads["ctc"].weight)


def test_the_voice_becomes_quieter_for_a_moment_in_some_clips() -> None:
    torch = pytest.importorskip("torch")
    from models.mini.recordings import DIP_SHARE, Recorder, Store

    recorder = Recorder(Store(torch.device("cpu"), 0.001), 1)
    level = recorder._dips(torch.full((400,), 16_000), torch.arange(16_000))
    lowest = level.amin(1)
    assert abs(float((lowest < 1).float().mean()) - DIP_SHARE) < 0.08
    assert 0.1 <= float(lowest.min()) < 0.4 and float(level.max()) == 1.0
