"""Telephone numbers in English, read by some seventy people into their own phones and computers: the Alphanumeric Audio
Dataset (MIT).

Credit: Copyright (c) 2024 Sakshee Patil, "Alphanumeric Audio Dataset", and those who gave their voices. ``folder`` holds
``metadata.csv`` and ``audio_data/Numbers``. Of each number there are the whole recording and pieces cut out of it at the
pauses: a digit each where there are as many as digits; else the aligner of this project tells which lie between two pauses.
"""

from __future__ import annotations

import csv
import random
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr

from .texts import ENGLISH_DIGITS, Text

SAMPLE_RATE = 16_000
HELD_OUT_ONE_IN = 6  # of the people
SHORTEST_NUMBER, WHOLE_NUMBER = 8, 10  # digits
# Here people read something else than the list says.
OTHER_NUMBERS = ("R_34Kh357EGklz2X7", "R_14L9qNxUlipFmsF")
SAY_OH = ("R_3nAeHdtYMOFbRQJ", "R_3f5pnhlvLlxkfu1", "R_4TIdkLil27HhMH3")
# A pause is longer and by this much quieter than what is loud; of the stop in "eight" there remains less.
PAUSE_SECONDS, PAUSE_POWER, MARGIN_SECONDS = 0.11, 1e-3, 0.05
LONGEST_SECONDS = 12.0
PIECES_SHARE = 0.55
_FRAME = 160


@dataclass(frozen=True)
class Recording:
    """Somebody's telephone number: the person's name in the collection and the words that were said."""

    person: str
    path: Path
    words: tuple[str, ...]


def held_out(person: str) -> bool:
    """Whether a person is kept for choosing and never heard in training."""
    return zlib.crc32(person.encode()) % HELD_OUT_ONE_IN == 0


def recordings(folder: Path) -> list[Recording]:
    """The recordings whose number is known. Of nine digits the list has lost the zero before them."""
    found = []
    with (folder / "metadata.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            person, path, number = row["Response_ID"], folder / row["file_name"], row["Number"].strip()
            if path.parent.name != "Numbers" or person in OTHER_NUMBERS or len(number) < SHORTEST_NUMBER:
                continue
            number = number.zfill(WHOLE_NUMBER) if len(number) == WHOLE_NUMBER - 1 else number
            words = [ENGLISH_DIGITS[int(digit)] for digit in number]
            if person in SAY_OH:
                words = ["oh" if word == "zero" else word for word in words]
            found.append(Recording(person, path, tuple(words)))
    return found


def samples_of(path: Path) -> np.ndarray:
    """float32 samples at 16 kHz."""
    samples, rate = soundfile.read(str(path), dtype="float32", always_2d=True)
    return np.asarray(soxr.resample(samples.mean(axis=1), rate, SAMPLE_RATE), np.float32)


def sounds(samples: np.ndarray) -> list[tuple[int, int]]:
    """First and last sample of what lies between two pauses."""
    frames = samples[: samples.size // _FRAME * _FRAME].reshape(-1, _FRAME)
    power = np.convolve((frames**2).mean(axis=1), np.full(3, 1 / 3), "same")
    floor = max(PAUSE_POWER * float(np.percentile(power, 95)), 3 * float(np.percentile(power, 5)))
    loud = np.flatnonzero(power > floor)
    if not loud.size:
        return []
    breaks = np.flatnonzero(np.diff(loud) > PAUSE_SECONDS * SAMPLE_RATE / _FRAME)
    parts = [part for part in np.split(loud, breaks + 1) if part.size > 8]  # no click
    return [(int(part[0]) * _FRAME, int(part[-1] + 1) * _FRAME) for part in parts]


def cut(
    spans: Sequence[tuple[int, int]], words: Sequence[str], times: Sequence[tuple[float, float]]
) -> list[tuple[int, int, tuple[str, ...]]]:
    """The words of each span by their ``times`` in seconds; spans in which no word or only a part of one lies are left out.

    A word is of a span when three quarters of it are; another one that reaches into the span makes it unknown.
    """
    if len(spans) == len(words):
        return [(start, stop, (word,)) for (start, stop), word in zip(spans, words)]
    pieces = []
    for start, stop in spans:
        inside = []
        for word, (begin, end) in zip(words, times):
            first, last = begin * SAMPLE_RATE, max(end, begin + 0.02) * SAMPLE_RATE
            share = (min(stop, last) - max(start, first)) / (last - first)
            if share >= 0.75:
                inside.append(word)
            elif share > 0.25:
                inside = []
                break
        # A digit takes from an eighth of a second to a second.
        if inside and 0.12 <= (stop - start) / SAMPLE_RATE / len(inside) <= 1.0:
            pieces.append((start, stop, tuple(inside)))
    return pieces


def utterances(folder: Path, clips: int, seed: int) -> Iterator[tuple[Text, np.ndarray]]:
    """``clips`` clips of those people who are not held out: whole numbers, and pieces of several or of one digit."""
    from qwen3asr_native import Aligner

    aligner = Aligner()
    whole: list[tuple[np.ndarray, tuple[str, ...]]] = []
    pieces: list[tuple[np.ndarray, tuple[str, ...]]] = []
    for recording in recordings(folder):
        if held_out(recording.person):
            continue
        samples = samples_of(recording.path)
        spans = sounds(samples)
        if not spans:
            continue
        margin = int(MARGIN_SECONDS * SAMPLE_RATE)
        said = samples[max(0, spans[0][0] - margin) : spans[-1][1] + margin]
        if said.size <= LONGEST_SECONDS * SAMPLE_RATE:
            whole.append((said, recording.words))
        told = aligner.align(samples, list(recording.words), "English", sample_rate=SAMPLE_RATE)
        times = [(word.start, word.end) for word in told]
        if len(times) != len(recording.words):
            continue
        for start, stop, words in cut(spans, recording.words, times):
            pieces.append((samples[max(0, start - margin) : stop + margin], words))
    single = [piece for piece in pieces if len(piece[1]) == 1]
    by_word = {word: [piece for piece in single if piece[1][0] == word] for word in {w for _, (w,) in single}}
    for number in range(clips):
        rng = random.Random(f"phone numbers/{seed}/{number}")
        kind = rng.random()
        if kind > PIECES_SHARE or not pieces:
            samples, words = rng.choice(whole)
        elif kind < PIECES_SHARE / 2 and by_word:  # all digits alike
            samples, words = rng.choice(by_word[rng.choice(sorted(by_word))])
        else:
            samples, words = rng.choice(pieces)
        written = " ".join(words)
        loudest = max(float(np.max(np.abs(samples))), 1e-6)
        yield Text("English", written, written), np.rint(samples * (29_000 / loudest)).astype(np.int16)


def build(folder: Path, directory: Path, clips: int, seed: int) -> None:
    """Write ``clips`` utterances as a corpus (``corpus.write``)."""
    from . import corpus  # needs PyTorch

    corpus.write(directory, utterances(folder, clips, seed))


def write_held_out(folder: Path, tsv: Path) -> None:
    """List the recordings of the people held out, for ``evaluate``; clips longer than the model hears are left out."""
    lines = ["path\ttext\tlanguage"]
    for recording in recordings(folder):
        seconds = soundfile.info(str(recording.path)).duration
        if held_out(recording.person) and seconds <= LONGEST_SECONDS + 1:
            lines.append(f"{recording.path.resolve()}\t{' '.join(recording.words)}\tEnglish")
    tsv.write_text("\n".join(lines) + "\n", encoding="utf-8")
