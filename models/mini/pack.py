"""A corpus as Opus: a tenth of the size, for a machine with a GPU that is far away."""

from __future__ import annotations

import argparse
import json
import random
import subprocess
from pathlib import Path

import numpy as np
import soundfile

from . import corpus
from .speech import SAMPLE_RATE


def pack(source: Path, target: Path, kilobits: int, minutes: float = float("inf"), seed: int = 0) -> float:
    """Write clips of ``source``, no more than ``minutes`` of them, as the corpus ``target``; return the minutes written."""
    samples, index = corpus.read(source)
    random.Random(seed).shuffle(index)
    gap = np.zeros(SAMPLE_RATE // 50, np.int16)  # what the codec smears stays between the clips
    pieces, offset, kept = [], 0, []
    for entry in index:
        if offset > 60 * minutes * SAMPLE_RATE:
            break
        pieces += [samples[entry["offset"] : entry["offset"] + entry["count"]], gap]
        kept.append({**entry, "offset": offset})
        offset += entry["count"] + gap.size
    target.mkdir(parents=True, exist_ok=True)
    path = target / "samples.ogg"
    raw = ("-f", "s16le", "-ar", str(SAMPLE_RATE), "-ac", "1", "-i", "-")
    codec = ("-c:a", "libopus", "-b:a", f"{kilobits}k", "-application", "audio", str(path))
    joined = np.concatenate(pieces)
    subprocess.run(("ffmpeg", "-v", "error", "-y", *raw, *codec), input=joined.tobytes(), check=True)
    read, rate = soundfile.read(str(path), dtype="int16")
    if rate != SAMPLE_RATE or read.size < offset - gap.size:
        raise RuntimeError(
            f"{path} has {read.size} samples at {rate} Hz instead of {offset} at {SAMPLE_RATE} Hz"
        )
    (target / "index.json").write_text(json.dumps(kept, ensure_ascii=False), encoding="utf-8")
    return offset / SAMPLE_RATE / 60


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m models.mini.pack", description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--kilobits", type=int, default=24, help="a second")
    parser.add_argument("--minutes", type=float, default=float("inf"))
    options = parser.parse_args()
    print(f"{pack(options.source, options.target, options.kilobits, options.minutes):.0f} minutes")


if __name__ == "__main__":
    main()
