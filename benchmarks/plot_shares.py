"""Draws how near the stages come to the machine's limits, one group of bars for each result of ``qwen3asr bench
--roofline``: ``python benchmarks/plot_shares.py shares.png LABEL=result.json ...``.

Encoder and prefill are shares of the int8 peak, decoding of the read bandwidth, all measured in the result's own run.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

STAGES = {
    "encode": ("encoder, of int8 peak", "#4477aa"),
    "prefill": ("prefill, of int8 peak", "#ee8866"),
    "decode": ("decoding, of read bandwidth", "#44aa99"),
}


def main() -> None:
    if len(sys.argv) < 3 or not all("=" in argument for argument in sys.argv[2:]):
        sys.exit(__doc__)
    results = {}
    for argument in sys.argv[2:]:
        label, _, path = argument.rpartition("=")
        results[label] = json.loads(Path(path).read_text(encoding="utf-8"))
    figure, axes = pyplot.subplots(figsize=(1.5 + 1.5 * len(results), 3.6), layout="constrained")
    width = 0.27
    for number, (stage, (name, color)) in enumerate(STAGES.items()):
        kind = "share_of_read" if stage == "decode" else "share_of_int8"
        heights = [100 * result["roofline"][stage][kind] for result in results.values()]
        bars = axes.bar(
            [i + (number - 1) * width for i in range(len(results))], heights, width, label=name, color=color
        )
        axes.bar_label(bars, fmt="%.0f", fontsize=8)
    labels = [
        f"{label}\n{result['summary']['first_token_ms']['median']:.0f} ms, "
        f"{result['summary']['per_token_ms']['median']:.1f} ms a token"
        for label, result in results.items()
    ]
    axes.set_xticks(range(len(results)), labels, fontsize=8)
    axes.set_ylim(0, 100)
    axes.set_ylabel("% of the limit")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, ncols=3, frameon=False, loc="upper center", bbox_to_anchor=(0.5, 1.14))
    figure.savefig(sys.argv[1], dpi=110)


if __name__ == "__main__":
    main()
