"""The mean of weights of runs with one beginning: ``python -m models.mini.mean OUT.pt A.pt=0.2 B.pt=0.8``.

Runs that went apart for a short while lie in one valley: their mean keeps most of what each has learned. The files are what
``accelerated`` writes, and so is OUT, from which it can go on.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

_PARTS = ("network", "heads")


def mean(shares: Mapping[Path, float]) -> dict[str, Any]:
    """Weights and heads in float32, each the mean of those of the files.

    Raises ValueError where the shares do not come to 1, or files have other names, sizes or tokens than the first.
    """
    if not math.isclose(sum(shares.values()), 1, abs_tol=1e-6):
        raise ValueError("the shares do not come to 1")
    result: dict[str, Any] = {}
    for path, share in shares.items():
        saved = torch.load(path, map_location="cpu", weights_only=True)
        if not result:
            result = {"network": {}, "heads": {}, "tokens": saved["tokens"]}
            first = {part: {name: value.shape for name, value in saved[part].items()} for part in _PARTS}
        shapes = {part: {name: value.shape for name, value in saved[part].items()} for part in _PARTS}
        if shapes != first or saved["tokens"] != result["tokens"]:
            raise ValueError(f"{path} has not the weights or the tokens of the first file")
        for part in _PARTS:
            for name, value in saved[part].items():
                result[part][name] = result[part].get(name, 0) + share * value.float()
    return result


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m models.mini.mean", description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("weights", nargs="+", metavar="FILE.pt=SHARE")
    options = parser.parse_args()
    pairs = [entry.rsplit("=", 1) for entry in options.weights]
    torch.save(mean({Path(path): float(share) for path, share in pairs}), options.out)


if __name__ == "__main__":
    main()
