"""Make the mini model: synthesize the corpus, train, convert, evaluate. One command: ``python -m models.mini``."""

from __future__ import annotations

import argparse
import math
import os
from pathlib import Path

import torch

from qwen3asr_native.files.convert import convert

from . import corpus, evaluate
from .train import train

NAME = "qwen3-asr-mini"
MODELS = Path(__file__).resolve().parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m models.mini", description=__doc__)
    parser.add_argument("--work", type=Path, default=MODELS / "work" / "mini", help="corpus and checkpoints")
    parser.add_argument("--out", type=Path, default=MODELS / f"{NAME}-q8_0.bin", help="GGMM file to write")
    parser.add_argument("--utterances", type=int, default=32_000)
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop training after this time")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", action="store_true", help="go on with an interrupted training")
    parser.add_argument("--clips", type=int, default=300, help="size of the test set")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    checkpoint = options.work / "checkpoint"
    if not (options.work / "corpus" / "index.json").is_file():
        corpus.build(options.work / "corpus", options.utterances, options.seed, options.threads)
    train(options.work / "corpus", checkpoint, options.steps, options.minutes, options.seed, options.resume)
    convert(checkpoint, options.out, "q8_0", name=NAME)
    evaluate.report(evaluate.checkpoint_transcriber(checkpoint), options.clips)


if __name__ == "__main__":
    main()
