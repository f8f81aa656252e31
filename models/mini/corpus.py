"""Training corpora: synthesized once, each kept as one flat file of samples, augmented anew each time they are used."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from . import ordinary
from .features import log_mel
from .speech import (
    MUSIC,
    NOISES,
    SAMPLE_RATE,
    add_noise,
    augment,
    invent_voices,
    no_speech,
    quantized,
    random_voice,
    synthesize,
    synthesize_flite,
)
from .texts import Text, english_digits, random_text

LONGEST_SECONDS = 12.0
INVENTED_VOICES = 600
NO_SPEECH_SHARE = 0.05
JOINED_SHARE = 0.1  # of the batches
ORDINARY_SHARE = 0.15  # of the clips: sentences without numbers, to which the answer is nothing
STRUNG_SHARE = 0.1  # of the clips: short ones in a row, as collections of single words are joined
SHORT_SECONDS = 1.0
FRAMES_PER_BATCH = 7_000
# Any voice of espeak-ng will do for what is not to be understood; the languages that are need most practice.
_ORDINARY_LANGUAGES = {**dict.fromkeys(ordinary.ESPEAK_VOICES, 1), "Chinese": 3, "English": 4}


def build(directory: Path, clips: int, seed: int, jobs: int) -> None:
    """Synthesize ``clips`` random utterances into ``directory`` (``samples.npy``, ``index.json``)."""
    invented = invent_voices(directory, INVENTED_VOICES, seed)

    def utterance(number: int) -> tuple[Text, np.ndarray]:
        rng = random.Random(f"{seed}/{number}")
        if rng.random() < ORDINARY_SHARE:
            text = ordinary.sentence(rng, _ORDINARY_LANGUAGES)
            return text, synthesize(text, random_voice(text.language, rng, invented=invented))
        # Every fourth is English: accents differ more than Mandarin voices do, and English is rare among the kinds.
        text = english_digits(rng) if number % 4 == 3 else random_text(rng)[1]
        return text, synthesize(text, random_voice(text.language, rng, invented=invented))

    with ThreadPoolExecutor(jobs) as pool:
        write(directory, pool.map(utterance, range(clips)))


def build_flite(directory: Path, clips: int, seed: int, jobs: int) -> None:
    """Synthesize ``clips`` English utterances with flite's voices, which are made from recordings of people."""

    def utterance(number: int) -> tuple[Text, np.ndarray]:
        rng = random.Random(f"flite/{seed}/{number}")
        text = (
            ordinary.sentence(rng, {"English": 1}) if rng.random() < ORDINARY_SHARE else english_digits(rng)
        )
        return text, synthesize_flite(text, rng)

    with ThreadPoolExecutor(jobs) as pool:
        write(directory, pool.map(utterance, range(clips)))


def write(
    directory: Path, utterances: Iterable[tuple[Text, np.ndarray] | tuple[Text, np.ndarray, dict]]
) -> None:
    """Write texts and int16 samples as a corpus: ``samples.raw`` and, when all is there, ``index.json``.

    What else is known of a clip can come as a dictionary behind its samples; it goes into the index.
    """
    directory.mkdir(parents=True, exist_ok=True)
    index: list[dict[str, Any]] = []
    offset = 0
    with (directory / "samples.raw.part").open("wb") as file:
        for text, samples, *more in utterances:
            if samples.size > LONGEST_SECONDS * SAMPLE_RATE:
                continue
            file.write(samples.tobytes())
            index.append(
                {**asdict(text), "offset": offset, "count": samples.size, **(more[0] if more else {})}
            )
            offset += samples.size
    part = directory / "index.json.part"
    part.write_text(json.dumps(index, ensure_ascii=False), encoding="utf-8")
    # A training that has the old samples open goes on reading them.
    (directory / "samples.raw.part").replace(directory / "samples.raw")
    part.replace(directory / "index.json")


def read(directory: Path) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """The int16 samples of a corpus, packed (see :mod:`.pack`) or not, and its index."""
    index = json.loads((directory / "index.json").read_text(encoding="utf-8"))
    if (directory / "samples.raw").is_file():
        return np.memmap(directory / "samples.raw", np.int16, "r"), index
    import soundfile

    parts = [soundfile.read(str(path), dtype="int16")[0] for path in sorted(directory.glob("samples*.ogg"))]
    return np.concatenate(parts), index


def test_set(
    clips: int, seed: int, snr_db: float | None = None
) -> Iterator[tuple[str, Text | None, np.ndarray]]:
    """``(kind, text, float32 samples)`` of voices and texts unlike those of training; no text: nobody speaks.

    One clip in twenty has no speech; with ``snr_db`` all others carry white, pink or brown noise at that level.
    """
    for number in range(clips):
        rng = random.Random(f"test/{seed}/{number}")
        numpy_rng = np.random.default_rng([seed, number])
        if number % 20 == 19:
            yield "none", None, no_speech(rng.uniform(0.5, 6), numpy_rng)
            continue
        kind, text = random_text(rng)
        samples = synthesize(text, random_voice(text.language, rng, held_out=True)).astype(np.float32) / 32768
        samples = np.pad(samples, [int(SAMPLE_RATE * rng.uniform(0.05, 0.5)) for _ in range(2)])
        samples *= 10 ** rng.uniform(-1, 0) / np.max(np.abs(samples))
        if snr_db is not None:
            samples = add_noise(samples, snr_db, rng.choice(("white", "pink", "brown")), numpy_rng)
            samples *= 0.9 / max(0.9, float(np.max(np.abs(samples))))
        yield kind, text, quantized(samples)


class _Corpus:
    """A folder that ``write`` has written."""

    def __init__(self, directory: Path) -> None:
        self.samples = np.memmap(directory / "samples.raw", np.int16, "r")
        self.index = json.loads((directory / "index.json").read_text(encoding="utf-8"))
        self.seconds = np.array([entry["count"] for entry in self.index]) / SAMPLE_RATE
        # Single words and other short clips by language, to be strung together.
        self.short: dict[str, list[int]] = {}
        for number, entry in enumerate(self.index):
            if entry["written"] and self.seconds[number] < SHORT_SECONDS:
                self.short.setdefault(entry["language"], []).append(number)

    def utterance(self, number: int) -> tuple[np.ndarray, str, str]:
        """Samples, language and text of one clip."""
        clip = self.index[number]
        samples = self.samples[clip["offset"] : clip["offset"] + clip["count"]]
        return np.asarray(samples), clip["language"], clip["written"]


class Batches(torch.utils.data.IterableDataset):
    """Endless batches of clips of similar length: lists of ``(mel [128, frames], language or None, text)``.

    ``shares``: how much of the clips comes from each corpus; a corpus that has grown is read again now and then.
    """

    def __init__(self, shares: dict[Path, float], seed: int) -> None:
        self.shares, self.seed = shares, seed

    def __iter__(self) -> Iterator[list[tuple[torch.Tensor, str | None, str]]]:
        torch.set_num_threads(1)
        worker = torch.utils.data.get_worker_info()
        rng = np.random.default_rng([self.seed, worker.id if worker else 0])
        weights = np.array(list(self.shares.values()))
        while True:
            corpora = [_Corpus(directory) for directory in self.shares]
            pool: list[tuple[_Corpus, int]] = []
            for corpus, count in zip(corpora, rng.multinomial(2000, weights / weights.sum())):
                count = min(int(count), 3 * len(corpus.index))
                order = rng.choice(len(corpus.index), count, replace=count > len(corpus.index))
                pool += [(corpus, int(number)) for number in order]
            lengths = [corpus.seconds[number] for corpus, number in pool]
            order = np.argsort(np.array(lengths) + rng.normal(0, 0.2, len(pool)))
            batches: list[list[tuple[_Corpus, int]]] = [[]]
            for place in order:
                if len(batches[-1]) >= _clips_per_batch(float(lengths[place])):
                    batches.append([])
                batches[-1].append(pool[place])
            for position in rng.permutation(len(batches)):
                utterances = [
                    _strung(corpus, number, rng) if rng.random() < STRUNG_SHARE else corpus.utterance(number)
                    for corpus, number in batches[position]
                ]
                if len(utterances) > 1 and rng.random() < JOINED_SHARE:
                    utterances = [_joined(*pair, rng) for pair in zip(utterances[::2], utterances[1::2])]
                yield [self._example(*utterance, rng) for utterance in utterances]

    @staticmethod
    def _example(
        samples: np.ndarray, language: str, text: str, rng: np.random.Generator
    ) -> tuple[torch.Tensor, str | None, str]:
        if rng.random() < NO_SPEECH_SHARE:
            seconds = max(0.1, samples.size / SAMPLE_RATE * rng.uniform(0.3, 1.2))
            return torch.from_numpy(log_mel(no_speech(seconds, rng, (*NOISES, MUSIC)))), None, ""
        mel = log_mel(augment(samples, rng))
        _mask_patches(mel, rng)
        return torch.from_numpy(mel), language if text else None, text


def _clips_per_batch(seconds: float) -> int:
    """One of a few sizes: kernels are compiled anew for every shape, which costs more than a little padding."""
    fits = FRAMES_PER_BATCH / (100 * (seconds + 0.4))
    return max((size for size in (4, 6, 8, 12, 16, 24, 32, 48) if size <= fits), default=4)


def _joined(
    first: tuple[np.ndarray, str, str], second: tuple[np.ndarray, str, str], rng: np.random.Generator
) -> tuple[np.ndarray, str, str]:
    """Two utterances of one language after each other: clips longer than an attention window."""
    longest = LONGEST_SECONDS * SAMPLE_RATE
    if first[1] != second[1] or not (first[2] and second[2]) or first[0].size + second[0].size > longest:
        return first
    pause = np.zeros(int(SAMPLE_RATE * rng.uniform(0.2, 1.2)), np.int16)
    text = first[2] + (" " if first[1] == "English" else "") + second[2]
    return np.concatenate([first[0], pause, second[0]]), first[1], text


def _strung(corpus: _Corpus, number: int, rng: np.random.Generator) -> tuple[np.ndarray, str, str]:
    """The clip with short ones of its language before or behind it, as long as two or three seconds."""
    samples, language, text = corpus.utterance(number)
    short = corpus.short.get(language, [])
    if not text or not short or samples.size > 1.5 * SAMPLE_RATE:
        return samples, language, text
    pieces, words = [samples], [text]
    gap = rng.choice((0.0, 0.05, 0.2))
    for _ in range(rng.integers(1, 7)):
        samples, _, text = corpus.utterance(int(rng.choice(short)))
        pause = np.zeros(int(SAMPLE_RATE * gap * rng.uniform(0.3, 1.7)), np.int16)
        pieces, words = [*pieces, pause, samples], [*words, text]
    return np.concatenate(pieces), language, (" " if language == "English" else "").join(words)


def _mask_patches(mel: np.ndarray, rng: np.random.Generator) -> None:
    """SpecAugment: hide a band of up to 18 filters and a few spans of up to 8 frames."""
    floor = mel.min()
    band = rng.integers(0, 110)
    mel[band : band + rng.integers(0, 18)] = floor
    for _ in range(1 + mel.shape[1] // 300):
        start = rng.integers(0, mel.shape[1])
        mel[:, start : start + rng.integers(0, 8)] = floor
