"""What ``accelerated`` has written as a GGMM file: ``python -m models.mini.export recognizer.pt OUT.bin``."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch

from qwen3asr_native.files.convert import convert

from . import checkpoint


def export(weights: Path, out: Path, dtype: str, name: str) -> None:
    """Convert the weights of a recognizer or an aligner."""
    saved = torch.load(weights, map_location="cpu", weights_only=True)
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        checkpoint.create(directory, aligner="lm_head.weight" in saved["network"])
        checkpoint.save_weights(directory, saved["network"])
        convert(directory, out, dtype, name=name)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m models.mini.export", description=__doc__)
    parser.add_argument("weights", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--dtype", default="q8_0")
    parser.add_argument("--name", default="qwen3-asr-mini", help="of the model, kept in the file")
    options = parser.parse_args()
    export(options.weights, options.out, options.dtype, options.name)


if __name__ == "__main__":
    main()
