"""Make the mini model: synthesize the corpora, train, convert, evaluate. One command: ``python -m models.mini``.

An interrupted run goes on where it stopped. models/README.md says where KOKORO and SYLLABLES come from.
"""

from __future__ import annotations

import argparse
import math
import os
from pathlib import Path

import torch

from qwen3asr_native.files.convert import convert

from . import commands, corpus, evaluate, neural, phone_numbers, recorded
from .train import train

NAME = "qwen3-asr-mini"
MODELS = Path(__file__).resolve().parents[1]
# How much of the clips that training hears is of which corpus.
SHARES = {"espeak": 0.36, "kokoro": 0.2, "phones": 0.16, "commands": 0.1, "recorded": 0.12, "flite": 0.06}


def corpora(options: argparse.Namespace) -> dict[Path, float]:
    """Make the corpora that are not there yet; their folders and shares."""
    folder, seed, jobs = options.work, options.seed, options.threads

    def missing(name: str) -> bool:
        return not (folder / name / "index.json").is_file()

    if missing("espeak"):
        corpus.build(folder / "espeak", options.utterances, seed, jobs)
    if missing("flite"):
        corpus.build_flite(folder / "flite", options.utterances // 10, seed, jobs)
    if options.syllables and missing("recorded"):
        recorded.build(options.syllables, folder / "recorded", options.utterances // 10, seed)
    if options.commands and missing("commands"):
        commands.build(options.commands, folder / "commands", options.utterances // 7, seed)
    if options.phones and missing("phones"):
        phone_numbers.build(options.phones, folder / "phones", options.utterances // 16, seed)
    if options.kokoro and missing("kokoro"):
        neural.build(options.kokoro, folder / "shards", options.shards, seed, jobs)
        neural.gather(folder / "shards", folder / "kokoro", seed)
    return {folder / name: share for name, share in SHARES.items() if not missing(name)}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m models.mini", description=__doc__)
    parser.add_argument("--work", type=Path, default=MODELS / "work" / "mini", help="corpora and checkpoints")
    parser.add_argument("--out", type=Path, default=MODELS / f"{NAME}-q8_0.bin", help="GGMM file to write")
    parser.add_argument(
        "--kokoro", type=Path, help="folder with kokoro.onnx, config.json and voices/ of Kokoro-82M"
    )
    parser.add_argument("--syllables", type=Path, help="folder 'ogg' of gcin-voice")
    parser.add_argument(
        "--commands",
        type=Path,
        nargs="*",
        default=[],
        help="folders of Speech Commands, one folder a word in each",
    )
    parser.add_argument("--phones", type=Path, help="folder of the Alphanumeric Audio Dataset")
    parser.add_argument("--start", type=Path, help="GGMM file of finished weights to go on from")
    parser.add_argument(
        "--utterances", type=int, default=32_000, help="of espeak-ng; a tenth of each smaller corpus"
    )
    parser.add_argument("--shards", type=int, default=300, help="of Kokoro: 40 clips, a minute or two each")
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop training after this time")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--clips", type=int, default=300, help="size of the synthetic test set")
    parser.add_argument(
        "--recordings", type=Path, nargs="*", default=[], help="TSV files to evaluate on as well"
    )
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    checkpoint = options.work / "checkpoint"
    shares = corpora(options)
    resume = (checkpoint / "state.pt").is_file()
    train(shares, checkpoint, options.steps, options.minutes, options.seed, resume, options.start)
    convert(checkpoint, options.out, "q8_0", name=NAME)
    transcribe = evaluate.ggmm_transcriber(options.out, options.threads)
    evaluate.report(transcribe, options.clips)
    if options.recordings:
        evaluate.report_recordings(transcribe, options.recordings)


if __name__ == "__main__":
    main()
