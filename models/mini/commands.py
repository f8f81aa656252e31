"""Single English words said by hundreds of people into their own microphones: the Speech Commands collection (CC BY 4.0).

Credit: Pete Warden, "Speech Commands: A Dataset for Limited-Vocabulary Speech Recognition", and those who gave their
voices. ``folder`` holds one folder a word with files ``SPEAKER_nohash_NUMBER.wav``; any part of the collection will do.
Digits come alone and in strings of one speaker or of several; every other word is one that the model has to pass over.
"""

from __future__ import annotations

import random
import zlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import soundfile

from .texts import ENGLISH_DIGITS, Text

SAMPLE_RATE = 16_000
HELD_OUT_ONE_IN = 12  # of the speakers
OTHER_WORDS_SHARE = 0.1
# Strings of one speaker have the digits that the speaker has said; those of several speakers have all ten alike, as single
# digits do: a part of the collection may hold hundreds of "eight" and ten of "three", and "three" must not become "eight".
ONE_SPEAKER_SHARE, SINGLE_SHARE = 0.2, 0.35
SHORTEST, LONGEST = 0.12, 0.95  # seconds of a word
OTHER = "another word"  # what is said where nothing is to be written
_FRAME = 160


def speaker(path: Path) -> str:
    return path.name.split("_")[0]


def held_out(name: str) -> bool:
    """Whether a speaker is kept for choosing and never heard in training."""
    return zlib.crc32(name.encode()) % HELD_OUT_ONE_IN == 0


def word(path: Path, margin: float) -> np.ndarray | None:
    """float32 samples at 16 kHz of the word in a recording and ``margin`` seconds around it.

    None where no word stands out of the noise, or where what stands out is shorter or longer than a word.
    """
    samples, rate = soundfile.read(str(path), dtype="float32")
    if rate != SAMPLE_RATE or samples.ndim != 1 or samples.size < 20 * _FRAME:
        return None
    frames = samples[: samples.size // _FRAME * _FRAME].reshape(-1, _FRAME)
    power = np.convolve(((frames - frames.mean()) ** 2).mean(axis=1), np.full(3, 1 / 3), "same")
    quiet, loud = float(np.percentile(power, 10)), float(np.max(power))
    if loud < 30 * quiet or loud < 1e-5:
        return None
    sounds = np.flatnonzero(power > max(4 * quiet, 1e-3 * loud))
    # The word is what is loudest, with the parts that follow it closely: /k/ of "six", /t/ of "eight".
    breaks = np.flatnonzero(np.diff(sounds) > 16)
    parts = np.split(sounds, breaks + 1)
    part = max(parts, key=lambda part: float(power[part].sum()))
    if not SHORTEST <= (part[-1] - part[0]) * _FRAME / SAMPLE_RATE <= LONGEST:
        return None
    around = int(margin * SAMPLE_RATE)
    start, stop = part[0] * _FRAME - around, (part[-1] + 1) * _FRAME + around
    return samples[max(0, start) : stop]


def _one_of(paths: Sequence[Path], margin: float, rng: random.Random) -> np.ndarray | None:
    """The word of any of the recordings, of the first few drawn in which one stands out."""
    drawn = rng.sample(paths, min(len(paths), 8))
    return next((found for path in drawn if (found := word(path, margin)) is not None), None)


def _joined(pieces: Sequence[np.ndarray], rng: random.Random) -> np.ndarray:
    """One after the other, about as loud as each other, with pauses in between or none."""
    ramp = np.linspace(0, 1, 80, dtype=np.float32)
    out: list[np.ndarray] = []
    pause = rng.choice((0.0, 0.05, 0.15, 0.3))
    for piece in pieces:
        loudest = max(float(np.max(np.abs(piece))), 1e-6)
        piece = piece * np.float32(rng.uniform(0.6, 1.0) / loudest)
        piece[:80] *= ramp
        piece[-80:] *= ramp[::-1]
        out += [piece, np.zeros(int(SAMPLE_RATE * pause * rng.uniform(0.3, 1.7)), np.float32)]
    return np.concatenate(out[:-1])


def _samples(signal: np.ndarray) -> np.ndarray:
    return np.rint(signal * (29_000 / max(float(np.max(np.abs(signal))), 1e-6))).astype(np.int16)


def recordings(folders: Sequence[Path]) -> dict[str, list[Path]]:
    """All recordings by word."""
    found: dict[str, list[Path]] = defaultdict(list)
    for folder in folders:
        for path in sorted(folder.glob("*/*_nohash_*.wav")):
            found[path.parent.name].append(path)
    return dict(found)


def utterances(folders: Sequence[Path], clips: int, seed: int) -> Iterator[tuple[Text, np.ndarray]]:
    """``clips`` clips, a few less where in recordings of a digit no word stands out."""
    found = {
        name: [path for path in paths if not held_out(speaker(path))]
        for name, paths in recordings(folders).items()
    }
    others = [path for name, paths in found.items() if name not in ENGLISH_DIGITS for path in paths]
    voices: dict[str, dict[str, list[Path]]] = defaultdict(lambda: defaultdict(list))
    for digit in ENGLISH_DIGITS:
        for path in found.get(digit, ()):
            voices[speaker(path)][digit].append(path)
    several = [voice for voice in voices.values() if len(voice) > 1]
    digits = [digit for digit in ENGLISH_DIGITS if found.get(digit)]
    for number in range(clips):
        rng = random.Random(f"commands/{seed}/{number}")
        margin = rng.choice((0.0, 0.02, 0.05, 0.1))
        kind = rng.random()
        if kind < OTHER_WORDS_SHARE and others:
            said, choices = [], [others]
        elif kind < OTHER_WORDS_SHARE + ONE_SPEAKER_SHARE and several:
            voice = rng.choice(several)
            said = [rng.choice(list(voice)) for _ in range(rng.randint(2, 9))]
            choices = [voice[digit] for digit in said]
        else:
            said = [rng.choice(digits) for _ in range(rng.randint(2, 9) if kind < 1 - SINGLE_SHARE else 1)]
            choices = [found[digit] for digit in said]
        pieces = [_one_of(paths, margin, rng) for paths in choices]
        if all(piece is not None for piece in pieces):
            written = " ".join(said)
            yield Text("English", written, written or OTHER), _samples(_joined(pieces, rng))


def build(folders: Sequence[Path], directory: Path, clips: int, seed: int) -> None:
    """Write ``clips`` utterances, a few less where no word stands out, as a corpus (``corpus.write``)."""
    from . import corpus  # needs PyTorch

    corpus.write(directory, utterances(folders, clips, seed))
