"""Utterances put together from recorded Mandarin syllables: the fifth voice of gcin-voice (CC BY 3.0).

Credit: 聲優　羅竺與徵音梅林開發委員會錄音組 (ChionMeilin, with the voice of Chu Lo). The other voices of that
collection are under GPL-3 or LGPL-3 and are not used. Debian's package ``gcin-voice`` has the recordings; ``folder`` is
its ``ogg`` folder, with one folder for each syllable in zhuyin, the tone as a number (none for the first).
"""

from __future__ import annotations

import functools
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
import soxr

from . import ordinary, texts
from .texts import Text

SAMPLE_RATE = 16_000
FILE = "5.ogg"
_TONES = {"ˊ": "2", "ˇ": "3", "ˋ": "4", "˙": "5"}
ORDINARY_SHARE = 0.2
# Of the numbers.
SHARES = {"string": 0.38, "single": 0.16, "few": 0.14, "cardinal": 0.14, "any": 0.18}
# Syllables as one says them alone, each with its full tone and up to a second long, as collections of words have them.
CITATION_SHARE = 0.4


def _zhuyin(character: str) -> str:
    from pypinyin import Style, lazy_pinyin

    syllable = lazy_pinyin(character, style=Style.BOPOMOFO)[0]
    for mark, number in _TONES.items():
        if mark in syllable:
            return syllable.replace(mark, "") + number
    return str(syllable)


@functools.lru_cache(maxsize=2048)
def _recording(folder: Path, character: str) -> np.ndarray | None:
    """float32 samples at 16 kHz of one character, without silence; None where there is no recording."""
    path = folder / _zhuyin(character) / FILE
    if not path.is_file():
        return None
    samples, rate = soundfile.read(str(path), dtype="float32")
    if samples.ndim == 2:
        samples = samples.mean(axis=1)
    samples = soxr.resample(samples, rate, SAMPLE_RATE)
    loud = np.flatnonzero(np.abs(samples) > 0.03 * np.max(np.abs(samples)))
    return np.asarray(samples[loud[0] : loud[-1] + 1], np.float32)


def _stretched(samples: np.ndarray, factor: float) -> np.ndarray:
    """``factor`` times as long, at the same pitch: frames of 25 ms are laid over each other at another distance.

    Each frame is moved by up to 5 ms to where it continues best what is there already (WSOLA).
    """
    frame, search = 400, 80
    hop = frame // 2
    window = np.hanning(frame).astype(np.float32)
    out = np.zeros(int(samples.size * factor) + 2 * frame, np.float32)
    padded = np.pad(samples, (search, frame + 2 * search))
    expected = None
    for position in range(0, int(samples.size * factor), hop):
        start = int(position / factor)
        if expected is not None:
            candidates = np.lib.stride_tricks.sliding_window_view(
                padded[start : start + frame + 2 * search], frame
            )
            start += int(np.argmax(candidates @ expected))
        piece = padded[start : start + frame]
        if piece.size < frame:
            break
        out[position : position + frame] += piece * window
        expected = padded[start + hop : start + hop + frame]
        if expected.size < frame:
            break
    return out[: int(samples.size * factor)]


def utterance(folder: Path, text: Text, rng: random.Random) -> np.ndarray | None:
    """int16 samples [n] of ``text``; None where a syllable is missing."""
    tempo, tract = rng.triangular(0.55, 1.4, 0.9), rng.triangular(0.75, 1.2, 1.0)
    overlap = rng.choice((0.0, 0.01, 0.03, 0.05))
    pause = rng.choice((0.0, 0.0, 0.05, 0.15, 0.3))
    if rng.random() < CITATION_SHARE:
        tempo, pause = rng.triangular(0.9, 2.8, 1.5), rng.choice((0.02, 0.1, 0.2, 0.35))
    out = np.zeros(0, np.float32)
    for character in text.spoken:
        if character in "，。":
            out = np.pad(out, (0, int(SAMPLE_RATE * rng.uniform(0.1, 0.4))))
            continue
        sound = _recording(folder, character)
        if sound is None:
            return None
        # Read faster or slower, it is the voice of another body; the tempo is set apart from that.
        places = np.arange(0, sound.size - 1, 1 / tract)
        sound = np.interp(places, np.arange(sound.size), sound).astype(np.float32)
        sound = _stretched(sound, tempo / tract * rng.uniform(0.9, 1.1)) * np.float32(rng.uniform(0.7, 1.0))
        ramp = min(160, sound.size // 4)
        sound[:ramp] *= np.linspace(0, 1, ramp, dtype=np.float32)
        sound[-ramp:] *= np.linspace(1, 0, ramp, dtype=np.float32)
        if pause:
            out = np.concatenate(
                [out, np.zeros(int(SAMPLE_RATE * pause * rng.uniform(0.5, 1.5)), np.float32), sound]
            )
            continue
        start = max(0, out.size - int(overlap * SAMPLE_RATE))
        joined = np.zeros(max(out.size, start + sound.size), np.float32)
        joined[: out.size] = out
        joined[start : start + sound.size] += sound
        out = joined
    return np.rint(out * (29_000 / max(float(np.max(np.abs(out))), 1e-6))).astype(np.int16)


def _number(rng: random.Random) -> Text:
    """A number; also single syllables, pairs and short cardinals, as word collections have them."""
    kind = rng.choices(list(SHARES), list(SHARES.values()))[0]
    if kind == "string":
        return texts.digit_string(rng)
    if kind == "single":
        return texts.digits(rng, 1)
    if kind == "few":
        return texts.digits(rng, rng.randint(2, 3))
    if kind == "cardinal":
        value = rng.randint(10, 10 ** rng.randint(2, 5))
        if rng.random() < 0.4:  # round ones, as one says them
            value -= value % 10 ** rng.randint(1, len(str(value)) - 1)
        words = texts.cardinal(value, rng)
        return Text("Chinese", words, words)
    while True:
        text = texts.random_text(rng)[1]
        if text.language == "Chinese":
            return text


def build(folder: Path, directory: Path, clips: int, seed: int) -> None:
    """Write ``clips`` utterances, a few less where syllables are missing, as a corpus (``corpus.write``)."""
    from . import corpus  # needs PyTorch

    def utterances() -> Iterator[tuple[Text, np.ndarray]]:
        for number in range(clips):
            rng = random.Random(f"recorded/{seed}/{number}")
            text = ordinary.sentence(rng, {"Chinese": 1}) if rng.random() < ORDINARY_SHARE else _number(rng)
            samples = utterance(folder, text, rng) if text.language == "Chinese" else None
            if samples is not None:
                yield text, samples

    corpus.write(directory, utterances())
