"""The training corpus: synthesized once, kept as one flat file of samples, augmented anew each time it is used."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from .features import log_mel
from .speech import (
    SAMPLE_RATE,
    add_noise,
    augment,
    invent_voices,
    no_speech,
    quantized,
    random_voice,
    synthesize,
)
from .texts import Text, english_digits, random_text

LONGEST_SECONDS = 12.0
INVENTED_VOICES = 600
NO_SPEECH_SHARE = 0.05
JOINED_SHARE = 0.1  # of the batches
FRAMES_PER_BATCH = 7_000


def build(directory: Path, clips: int, seed: int, jobs: int) -> None:
    """Synthesize ``clips`` random utterances into ``directory`` (``samples.npy``, ``index.json``)."""
    directory.mkdir(parents=True, exist_ok=True)
    invented = invent_voices(directory, INVENTED_VOICES, seed)

    def utterance(number: int) -> tuple[Text, np.ndarray]:
        rng = random.Random(f"{seed}/{number}")
        # Every fourth is English: accents differ more than Mandarin voices do, and English is rare among the kinds.
        text = english_digits(rng) if number % 4 == 3 else random_text(rng)[1]
        return text, synthesize(text, random_voice(text.language, rng, invented=invented))

    index = []
    offset = 0
    with (directory / "samples.raw").open("wb") as file, ThreadPoolExecutor(jobs) as pool:
        for text, samples in pool.map(utterance, range(clips)):
            if samples.size > LONGEST_SECONDS * SAMPLE_RATE:
                continue
            file.write(samples.tobytes())
            index.append({**asdict(text), "offset": offset, "count": samples.size})
            offset += samples.size
    (directory / "index.json").write_text(json.dumps(index, ensure_ascii=False), encoding="utf-8")


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


class Batches(torch.utils.data.IterableDataset):
    """Endless batches of clips of similar length: lists of ``(mel [128, frames], language or None, text)``."""

    def __init__(self, directory: Path, seed: int) -> None:
        self.directory, self.seed = directory, seed

    def __iter__(self) -> Iterator[list[tuple[torch.Tensor, str | None, str]]]:
        torch.set_num_threads(1)
        worker = torch.utils.data.get_worker_info()
        rng = np.random.default_rng([self.seed, worker.id if worker else 0])
        self.samples = np.memmap(self.directory / "samples.raw", np.int16, "r")
        self.index = json.loads((self.directory / "index.json").read_text(encoding="utf-8"))
        seconds = np.array([entry["count"] for entry in self.index]) / SAMPLE_RATE
        while True:
            order = rng.permutation(len(self.index))[:2000]
            order = order[np.argsort(seconds[order] + rng.normal(0, 0.2, order.size))]
            batches: list[list[int]] = [[]]
            for entry in order:
                if len(batches[-1]) >= _clips_per_batch(float(seconds[entry])):
                    batches.append([])
                batches[-1].append(int(entry))
            for position in rng.permutation(len(batches)):
                utterances = [self.utterance(entry) for entry in batches[position]]
                if len(utterances) > 1 and rng.random() < JOINED_SHARE:
                    utterances = [_joined(*pair, rng) for pair in zip(utterances[::2], utterances[1::2])]
                yield [self._example(*utterance, rng) for utterance in utterances]

    def utterance(self, entry: int) -> tuple[np.ndarray, str, str]:
        """Samples, language and text of one clip of the corpus."""
        clip = self.index[entry]
        samples = self.samples[clip["offset"] : clip["offset"] + clip["count"]]
        return np.asarray(samples), clip["language"], clip["written"]

    @staticmethod
    def _example(
        samples: np.ndarray, language: str, text: str, rng: np.random.Generator
    ) -> tuple[torch.Tensor, str | None, str]:
        if rng.random() < NO_SPEECH_SHARE:
            seconds = max(0.1, samples.size / SAMPLE_RATE * rng.uniform(0.3, 1.2))
            return torch.from_numpy(log_mel(no_speech(seconds, rng))), None, ""
        mel = log_mel(augment(samples, rng))
        _mask_patches(mel, rng)
        return torch.from_numpy(mel), language, text


def _clips_per_batch(seconds: float) -> int:
    """One of a few sizes: kernels are compiled anew for every shape, which costs more than a little padding."""
    fits = FRAMES_PER_BATCH / (100 * (seconds + 0.4))
    return max((size for size in (4, 6, 8, 12, 16, 24, 32, 48) if size <= fits), default=4)


def _joined(
    first: tuple[np.ndarray, str, str], second: tuple[np.ndarray, str, str], rng: np.random.Generator
) -> tuple[np.ndarray, str, str]:
    """Two utterances of one language after each other: clips longer than an attention window."""
    longest = LONGEST_SECONDS * SAMPLE_RATE
    if first[1] != second[1] or first[0].size + second[0].size > longest:
        return first
    pause = np.zeros(int(SAMPLE_RATE * rng.uniform(0.2, 1.2)), np.int16)
    text = first[2] + (" " if first[1] == "English" else "") + second[2]
    return np.concatenate([first[0], pause, second[0]]), first[1], text


def _mask_patches(mel: np.ndarray, rng: np.random.Generator) -> None:
    """SpecAugment: hide a band of up to 18 filters and a few spans of up to 8 frames."""
    floor = mel.min()
    band = rng.integers(0, 110)
    mel[band : band + rng.integers(0, 18)] = floor
    for _ in range(1 + mel.shape[1] // 300):
        start = rng.integers(0, mel.shape[1])
        mel[:, start : start + rng.integers(0, 8)] = floor
