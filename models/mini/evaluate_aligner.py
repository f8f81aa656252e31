"""How far the times of a forced aligner are from those of the synthesizer, on voices and texts that training never had:
``python -m models.mini.evaluate_aligner [MODEL] [--clips 400]``. Needs espeak-ng's library."""

from __future__ import annotations

import argparse
import random

import numpy as np

from qwen3asr_native import Aligner

from . import espeak, render, speech

_SILENCE_SECONDS = 0.2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", help="the built-in mini aligner")
    parser.add_argument("--clips", type=int, default=400)
    parser.add_argument("--seed", type=int, default=77)
    options = parser.parse_args()
    for language, errors in measure(Aligner(options.model), options.clips, options.seed).items():
        distance = np.abs(errors)
        shares = ", ".join(f"{np.mean(distance <= limit):.0%} within {limit} ms" for limit in (60, 100, 200))
        print(
            f"{language}: {len(errors) // 2} words, mean {distance.mean():.0f} ms, median {np.median(distance):.0f} ms, "
            f"{shares}, median with its sign {np.median(errors):.0f} ms"
        )


def measure(aligner: Aligner, clips: int, seed: int) -> dict[str, np.ndarray]:
    """Begin and end of each word, told less spoken, in milliseconds; for each language [2 * words]."""
    engine, rng = espeak.Espeak(), random.Random(seed)
    errors: dict[str, list[float]] = {"Chinese": [], "English": []}
    while clips > 0:
        text, _ = render.random_text(rng)
        if text.language not in errors:
            continue
        try:
            heard = render.utterance(engine, text, speech.random_voice(text.language, rng, True, ()))
        except RuntimeError:  # a voice that is not installed
            continue
        if not heard or not heard[1]:
            continue
        samples, spoken = heard
        silence = np.zeros(int(_SILENCE_SECONDS * speech.SAMPLE_RATE), np.float32)
        pcm = np.concatenate([silence, samples.astype(np.float32) / 32768, silence])
        told = aligner.align(
            pcm, [unit for unit, *_ in spoken], text.language, sample_rate=speech.SAMPLE_RATE
        )
        for word, (_, begin, end) in zip(told, spoken):
            errors[text.language] += [
                1000 * (word.start - begin - _SILENCE_SECONDS),
                1000 * (word.end - end - _SILENCE_SECONDS),
            ]
        clips -= 1
    return {language: np.array(values) for language, values in errors.items() if values}


if __name__ == "__main__":
    main()
