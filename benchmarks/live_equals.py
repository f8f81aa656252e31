"""Whether live speech says what a file says: ``python benchmarks/live_equals.py [--model M] [--clips 300] [--minutes 10]``.

The clips are the built-in model's test set, which needs espeak-ng and ``models/mini/requirements.txt``. First each clip
alone, fed in blocks of random sizes: every utterance of the session is held against ``transcribe`` of the same stretch of
audio, token for token, and the session's text against that of the whole clip. Then clips joined with silence and noise between
them until ``--minutes`` are full.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from qwen3asr_native import Model
from qwen3asr_native.audio import SAMPLE_RATE

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--model")
    words.add_argument("--clips", type=int, default=300)
    words.add_argument("--minutes", type=float, default=10.0)
    words.add_argument("--seed", type=int, default=0)
    given = words.parse_args()
    from models.mini import corpus

    rng = np.random.default_rng(given.seed)
    clips = [samples.astype(np.float32) for _, _, samples in corpus.test_set(given.clips, 2026, None)]
    with Model(given.model) as model:
        utterances = equal = same_text = 0
        for clip in clips:
            count, alike, text = session(model, clip, rng)
            utterances, equal = utterances + count, equal + alike
            whole = model.transcribe(clip, sample_rate=SAMPLE_RATE).text
            same_text += text == whole
            if text != whole:
                print(f"live {text!r}, file {whole!r}", flush=True)
        print(f"{len(clips)} clips: {equal} of {utterances} utterances equal those of their audio as a file")
        print(f"{same_text} of {len(clips)} sessions have the text of the whole clip as a file")
        talk = np.concatenate(list(joined(clips, given.minutes, rng)))
        count, alike, _ = session(model, talk, rng)
        minutes = len(talk) / SAMPLE_RATE / 60
        print(
            f"{minutes:.1f} minutes joined: {alike} of {count} utterances equal those of their audio as a file"
        )


def session(model: Model, sound: np.ndarray, rng: np.random.Generator) -> tuple[int, int, str]:
    """Utterances of a live session, how many equal their audio as a file, and the session's text."""
    with model.live() as live:
        at = 0
        while at < len(sound):
            size = int(rng.integers(1, SAMPLE_RATE))
            live.feed(sound[at : at + size])
            at += size
            while live._session._waiting >= SAMPLE_RATE:  # so that each second makes a hypothesis
                time.sleep(0.001)
        heard = live.finish()
    equal = 0
    for segment in heard.segments:
        stretch = sound[round(segment.start * SAMPLE_RATE) : round(segment.end * SAMPLE_RATE)]
        offline = model.transcribe(stretch, sample_rate=SAMPLE_RATE)
        equal += (offline.raw, offline.finish) == (segment.raw, segment.finish)
    return len(heard.segments), equal, heard.text


def joined(clips: list[np.ndarray], minutes: float, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Clips with pauses of 0.8 to 4 s between them, silent or with noise of some level."""
    seconds = 0.0
    while seconds < 60 * minutes:
        clip = clips[int(rng.integers(len(clips)))]
        pause = int(rng.uniform(0.8, 4) * SAMPLE_RATE)
        level = float(rng.choice([0.0, 1e-3, 5e-3]))
        for part in (clip, level * rng.standard_normal(pause).astype(np.float32)):
            seconds += len(part) / SAMPLE_RATE
            yield part


if __name__ == "__main__":
    main()
