"""Training speech of the neural synthesizer Kokoro-82M (Apache-2.0): connected, human-like, in mixed voices.

What formant synthesis cannot teach is how the sounds of a human voice run together. One clip is one utterance in a
voice made up for it: timbre and prosody are mixed separately from the synthesizer's voices, the speed is drawn, the
pronunciation varies as speakers do (third-tone sandhi or not, retroflex or flat initials, British or American).
:data:`HELD_OUT_VOICES` never speak in training.

``models/README.md`` tells where the model file and the voices are found. The work is cut into shards that are made
independently of each other, each from its own seed: an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import argparse
import functools
import json
import multiprocessing
import os
import random
import re
import subprocess
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import soundfile
import soxr

from . import corpus, ordinary, speech, texts
from .texts import Text

SAMPLE_RATE = 16_000
KOKORO_RATE = 24_000
CLIPS_PER_SHARD = 40
LONGEST_TOKENS = 400
HELD_OUT_VOICES = (
    "af_sky",
    "am_michael",
    "bf_lily",
    "bm_george",
    "zf_xiaoyi",
    "zm_yunyang",
    "if_sara",
    "pm_santa",
)
# First letters of the voices' names whose first language it is.
NATIVE = {
    "Chinese": "z",
    "English": "ab",
    "Spanish": "e",
    "French": "f",
    "Hindi": "h",
    "Italian": "i",
    "Japanese": "j",
    "Portuguese": "p",
}
# Share of the clips: digit strings (Mandarin, English), all other Mandarin numbers, ordinary speech without numbers, single
# digits, and up to three digits or a cardinal below a thousand, of both languages: a lone Mandarin digit of a microphone
# is taken for English where only English ones are heard from microphones.
SHARES = {"digits": 0.16, "english": 0.14, "number": 0.14, "ordinary": 0.13, "single": 0.25, "short": 0.18}
MANDARIN_SHARE = 0.6  # of the single digits and of what is short

ENGLISH = {
    "zero": ("zˈɪɹO", "zˈiɹO", "zˈiɹO", "zˈɪəɹQ", "zˈiəɹO"),
    "oh": ("ˈO", "ˈO", "ˈQ"),
    "one": ("wˈʌn", "wˈʌn", "wˈʌn", "wˈɒn"),
    "two": ("tˈu", "tˈu", "tˈuː"),
    "three": ("θɹˈi", "θɹˈi", "θɹˈiː", "tɹˈi"),
    "four": ("fˈɔɹ", "fˈɔɹ", "fˈɔː"),
    "five": ("fˈIv",),
    "six": ("sˈɪks",),
    "seven": ("sˈɛvən", "sˈɛvᵊn"),
    "eight": ("ˈAt",),
    "nine": ("nˈIn",),
}
# espeak-ng's IPA (diphthongs tied by ^) in the alphabet that the model was trained with; longest first.
ESPEAK = (
    *(("a^ɪ", "I"), ("a^ʊ", "W"), ("d^z", "ʣ"), ("d^ʒ", "ʤ"), ("e^ɪ", "A"), ("o^ʊ", "O"), ("ə^ʊ", "Q")),
    *(("s^s", "S"), ("t^s", "ʦ"), ("t^ʃ", "ʧ"), ("ɔ^ɪ", "Y"), ("ə^l", "ᵊl"), ("ɚ", "əɹ"), ("r", "ɹ")),
    *(("ɬ", "l"), ("ɐ", "ə"), ("g", "ɡ"), ("^", "")),
)
_TONES = (("˧˩˧", "↓"), ("˧˥", "↗"), ("˥˩", "↘"), ("˥", "→"))


class Kokoro:
    """The synthesizer on one thread; ``folder`` holds kokoro.onnx, config.json (the alphabet) and voices/."""

    def __init__(self, folder: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(
            str(folder / "kokoro.onnx"), options, ["CPUExecutionProvider"]
        )
        self.alphabet: dict[str, int] = json.loads((folder / "config.json").read_text(encoding="utf-8"))[
            "vocab"
        ]
        self.voices = {
            path.stem: np.fromfile(path, np.float32).reshape(-1, 256)
            for path in sorted((folder / "voices").glob("*.bin"))
        }
        if not self.voices:
            raise FileNotFoundError(f"no voices (*.bin) in {folder / 'voices'}; see models/README.md")

    def style(self, language: str, rng: random.Random, held_out: bool) -> tuple[np.ndarray, str]:
        """A voice [510, 256] (row: number of tokens) and how it was made.

        The first half of a row shapes the sound, the second the durations and the melody; they are drawn apart.
        Held-out voices are used as they are.
        """
        if held_out:
            names = [name for name in HELD_OUT_VOICES if name[0] in NATIVE[language]] or list(HELD_OUT_VOICES)
            name = rng.choice(names)
            return self.voices[name], name
        everyone = [name for name in self.voices if name not in HELD_OUT_VOICES]
        native = [name for name in everyone if name[0] in NATIVE[language]]

        def mixture(native_share: float) -> tuple[np.ndarray, str]:
            first = rng.choice(native if rng.random() < native_share else everyone)
            if rng.random() < 0.35:
                return self.voices[first], first
            second = rng.choice(native if rng.random() < 0.5 else everyone)
            share = rng.uniform(0.0, 0.6)
            mixed = self.voices[first] * np.float32(1 - share) + self.voices[second] * np.float32(share)
            return mixed, f"{first}+{share:.2f}*{second}"

        (timbre, one), (prosody, two) = mixture(0.6), mixture(0.9)
        if rng.random() < 0.4:
            prosody, two = timbre, one
        return np.concatenate([timbre[:, :128], prosody[:, 128:]], axis=1), f"{one} / {two}"

    def speak(self, phonemes: str, style: np.ndarray, speed: float) -> np.ndarray:
        """int16 samples [n] at 16 kHz without leading and trailing silence."""
        tokens = [self.alphabet[symbol] for symbol in phonemes if symbol in self.alphabet][:LONGEST_TOKENS]
        inputs = {
            "tokens": np.array([[0, *tokens, 0]], np.int64),
            "style": style[min(len(tokens), len(style) - 1)][None].astype(np.float32),
            "speed": np.array([speed], np.float32),
        }
        (samples,) = self.session.run(None, inputs)
        samples = soxr.resample(
            np.asarray(samples, np.float32).ravel(), KOKORO_RATE, SAMPLE_RATE, quality="HQ"
        )
        level = np.sqrt(np.convolve(samples**2, np.full(160, 1 / 160, np.float32), "same"))
        loud = np.flatnonzero(level > 0.01 * max(float(level.max(initial=0)), 1e-6))
        samples = samples[max(0, loud[0] - 160) : loud[-1] + 160]
        peak = float(np.max(np.abs(samples)))
        return np.rint(samples * (29_000 / max(peak, 1e-6))).astype(np.int16)


def english_phonemes(words: str, rng: random.Random) -> str:
    """Digit words with commas: one way of speaking for the whole utterance."""
    choice = {word: rng.choice(variants) for word, variants in ENGLISH.items()}
    weak = rng.random() < 0.3
    spoken = []
    for word in words.split():
        sounds = choice[word.rstrip(",")]
        if weak and rng.random() < 0.4:
            sounds = sounds.replace("ˈ", "ˌ")
        spoken.append(sounds + ("," if word.endswith(",") else ""))
    return " ".join(spoken) + rng.choice(("", "", ".", ".", "?"))


@functools.lru_cache(maxsize=4096)
def _syllable(pinyin: str) -> str:
    """Kokoro's symbols for a pinyin syllable with its tone as a number, 5 for none."""
    from misaki.transcription import pinyin_to_ipa

    sounds = "".join(pinyin_to_ipa(pinyin)[0])
    for tone, symbol in _TONES:
        sounds = sounds.replace(tone, symbol)
    return re.sub("[ɻɹ]\u0329", "ɨ", sounds).replace("\u032f", "")


def chinese_phonemes(spoken: str, rng: random.Random, words: bool = False) -> str:
    """Mandarin text with full-width commas; ``words``: readings by phrase, as ordinary text needs them."""
    from pypinyin import Style, lazy_pinyin

    sandhi, flat = rng.random() < 0.6, rng.random() < 0.2
    gap = rng.choice(("", "", "", " "))
    groups = []
    for group in re.split("[，。]", spoken):
        units = group if words else list(group)
        pinyin = lazy_pinyin(units, style=Style.TONE3, neutral_tone_with_five=True)
        if sandhi and not words:
            for i in range(len(pinyin) - 1):
                if group[i] == "一" and group[i + 1] in "百千万亿":
                    pinyin[i] = "yi2" if group[i + 1] in "万亿" else "yi4"
                elif pinyin[i][-1] == pinyin[i + 1][-1] == "3" and rng.random() < 0.8:
                    pinyin[i] = pinyin[i][:-1] + "2"
        groups.append(gap.join(_syllable(syllable) for syllable in pinyin))
    phonemes = ", ".join(groups)
    if flat:  # as much of the south speaks: no retroflex initials
        phonemes = phonemes.replace("ꭧ", "ʦ").replace("ʂ", "s")
    return phonemes + rng.choice(("", "", ".", "."))


def espeak_phonemes(spoken: str, voice: str) -> str:
    """Text of any language by espeak-ng's rules."""
    command = ["espeak-ng", "-q", "--ipa", "--tie=^", "-v", voice, spoken]
    sounds = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    sounds = re.sub(r"\([a-z-]+\)", "", " ".join(sounds.split()))
    for old, new in ESPEAK:
        sounds = sounds.replace(old, new)
    return sounds + "."


def _few_words(rng: random.Random, digits: int) -> Text:
    """A string of ``digits`` digits or, from two on, as often a cardinal."""
    chinese = rng.random() < MANDARIN_SHARE
    if digits > 1 and rng.random() < 0.5:
        value = rng.randint(10, 99) if rng.random() < 0.6 else rng.randint(100, 999)
        words = (texts.cardinal if chinese else texts.english_cardinal)(value, rng)
        return Text("Chinese" if chinese else "English", words, words)
    if chinese:
        return texts.digits(rng, digits)
    words = " ".join(rng.choice((*texts.ENGLISH_DIGITS, "oh")) for _ in range(digits))
    return Text("English", words, words)


def random_utterance(rng: random.Random) -> tuple[str, Text]:
    """Kind and text of one clip; ordinary speech has language "" and nothing written."""
    kind = rng.choices(list(SHARES), list(SHARES.values()))[0]
    if kind == "digits":
        return kind, texts.digit_string(rng)
    if kind == "english":
        return kind, texts.english_digits(rng)
    if kind == "ordinary":
        return kind, ordinary.sentence(rng)
    if kind in ("single", "short"):
        return kind, _few_words(rng, 1 if kind == "single" else rng.randint(2, 3))
    while True:
        kind, text = texts.random_text(rng)
        if kind not in ("digits", "english"):
            return kind, text


def phonemes(kind: str, text: Text, rng: random.Random) -> str:
    if text.language == "Chinese":
        return chinese_phonemes(text.spoken, rng, words=kind == "ordinary")
    if kind != "ordinary" and set(text.spoken.replace(",", "").split()) <= ENGLISH.keys():
        return english_phonemes(text.spoken, rng)
    return espeak_phonemes(text.spoken, ordinary.ESPEAK_VOICES[text.language])


def make_shard(kokoro: Kokoro, directory: Path, seed: int, number: int, held_out: bool) -> None:
    """Write ``NUMBER.flac`` (the clips one after the other) and ``NUMBER.json`` (texts and places)."""
    target = directory / f"{number:05}.json"
    if target.is_file():
        return
    rng = random.Random(f"kokoro/{seed}/{held_out}/{number}")
    index, pieces, offset = [], [], 0
    for _ in range(CLIPS_PER_SHARD):
        kind, text = random_utterance(rng)
        style, voice = kokoro.style(text.language, rng, held_out)
        slow = kind == "single" and rng.random() < 0.5
        speed = round(rng.triangular(0.4, 0.9, 0.65) if slow else rng.triangular(0.5, 1.35, 0.85), 2)
        samples = kokoro.speak(phonemes(kind, text, rng), style, speed)
        index.append(
            {
                **asdict(text),
                "kind": kind,
                "voice": voice,
                "speed": speed,
                "offset": offset,
                "count": samples.size,
            }
        )
        pieces.append(samples)
        offset += samples.size
    soundfile.write(str(target.with_suffix(".flac")), np.concatenate(pieces), SAMPLE_RATE, subtype="PCM_16")
    part = target.with_suffix(".part")
    part.write_text(json.dumps(index, ensure_ascii=False), encoding="utf-8")
    part.replace(target)


def _worker(arguments: tuple[Path, Path, int, range, bool]) -> None:
    folder, directory, seed, numbers, held_out = arguments
    kokoro = Kokoro(folder)
    for number in numbers:
        make_shard(kokoro, directory, seed, number, held_out)


def build(folder: Path, directory: Path, shards: int, seed: int, jobs: int, held_out: bool = False) -> None:
    """Make the shards 0 .. ``shards`` - 1 that ``directory`` does not have yet."""
    directory.mkdir(parents=True, exist_ok=True)
    work = [(folder, directory, seed, range(job, shards, jobs), held_out) for job in range(jobs)]
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        pool.map(_worker, work)


def gather(shards: Path, directory: Path, seed: int = 0, coded_share: float = 0.5) -> None:
    """All finished shards as one corpus (``corpus.write``); every second shard a second time, through a codec."""

    def clips() -> Iterator[tuple[Text, np.ndarray]]:
        for path in sorted(shards.glob("*.json")):
            index = json.loads(path.read_text(encoding="utf-8"))
            samples, _ = soundfile.read(str(path.with_suffix(".flac")), dtype="int16")
            pieces = [samples[entry["offset"] : entry["offset"] + entry["count"]] for entry in index]
            # As Mandarin voices say a lone syllable, it may be over before anyone could know it.
            kept = [
                (Text(entry["language"], entry["written"], entry["spoken"]), piece)
                for entry, piece in zip(index, pieces)
                if piece.size >= 0.15 * SAMPLE_RATE
            ]
            yield from kept
            rng = random.Random(f"codec/{seed}/{path.stem}")
            if rng.random() < coded_share:
                coded = speech.through_codec([piece for _, piece in kept], rng.choice(list(speech.CODECS)))
                yield from ((text, piece) for (text, _), piece in zip(kept, coded))

    corpus.write(directory, clips())


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m models.mini.neural", description=__doc__)
    parser.add_argument("kokoro", type=Path, help="folder with kokoro.onnx, config.json and voices/")
    parser.add_argument("directory", type=Path, help="where the shards go")
    parser.add_argument(
        "--shards", type=int, default=150, help=f"of {CLIPS_PER_SHARD} clips, about 2 minutes each"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument(
        "--held-out", action="store_true", help="the voices that training never hears: a test set"
    )
    options = parser.parse_args()
    build(options.kokoro, options.directory, options.shards, options.seed, options.jobs, options.held_out)


if __name__ == "__main__":
    main()
