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
    measured = measure(Aligner(options.model), options.clips, options.seed)
    for (language, kind), errors in sorted(measured.items()):
        distance = np.abs(errors)
        shares = ", ".join(f"{np.mean(distance <= limit):.0%} within {limit} ms" for limit in (60, 100, 200))
        print(
            f"{language}, {kind}: {len(errors) // 2} words, mean {distance.mean():.0f} ms, median {np.median(distance):.0f} ms, "
            f"{shares}, median with its sign {np.median(errors):.0f} ms"
        )


def measure(aligner: Aligner, clips: int, seed: int) -> dict[tuple[str, str], np.ndarray]:
    """Begin and end of each word, told less spoken, in milliseconds [2 * words]; for each language all words, those of
    numbers and those of other texts.

    Raises:
        RuntimeError: The aligner tells of more or fewer words than were spoken.
    """
    engine, rng = espeak.Espeak(), random.Random(seed)
    errors: dict[tuple[str, str], list[float]] = {}
    while clips > 0:
        text, _ = render.random_text(rng)
        if text.language not in ("Chinese", "English"):
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
        if len(told) != len(spoken):
            raise RuntimeError(f"{len(spoken)} words were spoken, {len(told)} have times: {text.spoken!r}")
        distances = [
            1000 * (at - of - _SILENCE_SECONDS)
            for word, (_, begin, end) in zip(told, spoken)
            for at, of in ((word.start, begin), (word.end, end))
        ]
        for kind in ("all", "numbers" if text.written else "other words"):
            errors.setdefault((text.language, kind), []).extend(distances)
        clips -= 1
    return {key: np.array(values) for key, values in errors.items()}


if __name__ == "__main__":
    main()
