"""The clips that ship for the tests and the sample: held-out voices and texts, so that testing needs no synthesizer."""

from __future__ import annotations

import argparse
import csv
import random
from pathlib import Path
from typing import Callable

import numpy as np
import soundfile
import soxr

from . import texts
from .speech import (
    CHINESE_VOICE,
    HELD_OUT_VARIANTS,
    SAMPLE_RATE,
    Voice,
    add_noise,
    no_speech,
    quantized,
    random_voice,
    synthesize,
    telephone,
)
from .texts import Text

ROOT = Path(__file__).resolve().parents[2]
SAMPLE_TEXT = Text("Chinese", "零九零零零七三三三一", "零九零零，零七三，三三一")
# How many clips of each kind of text.
COUNTS = {
    "digits": 8,
    "number": 6,
    "percentage": 2,
    "date": 4,
    "weekday": 1,
    "time": 3,
    "money": 4,
    "english": 7,
}


def _recording(text: Text, rng: random.Random) -> np.ndarray:
    """``text`` in a held-out voice with a little silence around it: float32 at 16 kHz."""
    samples = synthesize(text, random_voice(text.language, rng, held_out=True)).astype(np.float32) / 32768
    samples = np.pad(samples, [int(SAMPLE_RATE * rng.uniform(0.1, 0.3)) for _ in range(2)])
    return samples * np.float32(rng.uniform(0.3, 0.9) / np.max(np.abs(samples)))


def _plain(samples: np.ndarray) -> tuple[np.ndarray, int]:
    return samples, SAMPLE_RATE


def _telephone_file(samples: np.ndarray) -> tuple[np.ndarray, int]:
    return soxr.resample(telephone(samples, mu_law=True), SAMPLE_RATE, 8000), 8000


def _stereo_file(samples: np.ndarray) -> tuple[np.ndarray, int]:
    left = soxr.resample(samples, SAMPLE_RATE, 44_100)
    return np.stack([left, 0.5 * left], axis=1), 44_100


def _noisy(samples: np.ndarray) -> tuple[np.ndarray, int]:
    return add_noise(samples, 20.0, "pink", np.random.default_rng(20)), SAMPLE_RATE


def _quiet(samples: np.ndarray) -> tuple[np.ndarray, int]:
    return samples * np.float32(0.02 / np.max(np.abs(samples))), SAMPLE_RATE


SPECIAL: dict[str, tuple[str, Callable[[np.ndarray], tuple[np.ndarray, int]]]] = {
    "8khz-mu-law": ("digits", _telephone_file),
    "stereo-44khz": ("digits", _stereo_file),
    "noise-20db": ("number", _noisy),
    "quiet": ("money", _quiet),
}


def write_clips(directory: Path, seed: int = 7) -> None:
    """Write the clips (16-bit FLAC) and ``clips.tsv``: file, language (empty: nobody speaks), text."""
    directory.mkdir(parents=True, exist_ok=True)
    rows: list[tuple[str, str, str]] = []

    def save(name: str, samples: np.ndarray, rate: int, text: Text | None) -> None:
        soundfile.write(str(directory / f"{name}.flac"), quantized(samples), rate, subtype="PCM_16")
        rows.append((f"{name}.flac", text.language if text else "", text.written if text else ""))

    for kind, count in COUNTS.items():
        for number in range(1, count + 1):
            rng = random.Random(f"clips/{seed}/{kind}/{number}")
            text = texts.KINDS[kind][0](rng)
            save(f"{kind}-{number}", _recording(text, rng), SAMPLE_RATE, text)
    for name, (kind, transform) in SPECIAL.items():
        rng = random.Random(f"clips/{seed}/{name}")
        text = texts.KINDS[kind][0](rng)
        save(name, *transform(_recording(text, rng)), text)
    rng = random.Random(f"clips/{seed}/long")
    digits = ["".join(rng.choice(texts.DIGITS) for _ in range(5)) for _ in range(4)]
    voice = Voice(f"{CHINESE_VOICE}+{HELD_OUT_VARIANTS[1]}", rate=130, pitch=45, gap=0)
    spoken = [synthesize(Text("Chinese", part, part), voice).astype(np.float32) / 40_000 for part in digits]
    pause = np.zeros(SAMPLE_RATE // 2, np.float32)
    joined = np.concatenate([piece for samples in spoken for piece in (pause, samples)])
    save("two-windows", joined, SAMPLE_RATE, Text("Chinese", "".join(digits), ""))
    for number in range(1, 5):
        samples = no_speech(1.0 + number / 2, np.random.default_rng([seed, number]))
        save(f"no-speech-{number}", samples, SAMPLE_RATE, None)
    with (directory / "clips.tsv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(("file", "language", "text"))
        writer.writerows(rows)


def write_sample(directory: Path) -> None:
    """Write the spoken phone number that a newcomer transcribes first, and its digits."""
    directory.mkdir(parents=True, exist_ok=True)
    voice = Voice(f"{CHINESE_VOICE}+{HELD_OUT_VARIANTS[0]}", rate=140, pitch=50, gap=0)
    samples = synthesize(SAMPLE_TEXT, voice).astype(np.float32) / 32768
    samples = np.pad(samples, SAMPLE_RATE // 4)
    path = directory / "phone-number-zh-TW.wav"
    soundfile.write(str(path), quantized(samples), SAMPLE_RATE, subtype="PCM_16")
    digits = "".join(str(texts.DIGITS.index(digit)) for digit in SAMPLE_TEXT.written)
    path.with_suffix(".txt").write_text(digits + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=Path, default=ROOT / "tests" / "data" / "clips")
    parser.add_argument("--samples", type=Path, default=ROOT / "samples")
    options = parser.parse_args()
    write_clips(options.clips)
    write_sample(options.samples)


if __name__ == "__main__":
    main()
