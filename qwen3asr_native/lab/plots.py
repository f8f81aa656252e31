"""Pictures of a benchmark and of a leak examination, as PNG files."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import Qwen3AsrError
from ..files.output import OutputError, replace
from .measure import MB, extra

if TYPE_CHECKING:
    from . import bench, leaks

_STAGES = {"mel": "#b8c4d6", "encode": "#4477aa", "prefill": "#ee8866", "decode": "#44aa99"}
_RSS, _USS, _PEAK = "#4477aa", "#44aa99", "#b0b0b0"


def plot_bench(report: bench.Report, path: Path) -> None:
    """Stage times stacked, memory over the iterations, and the time of each token.

    Raises:
        ArgumentError: matplotlib is missing.
        Qwen3AsrError: The file cannot be written.
    """
    figure, axes = _figure(3, 1)
    (stages, memory, tokens) = axes[:, 0]
    runs = report.iterations
    position = np.arange(1, len(runs) + 1)
    bottom = np.zeros(len(runs))
    for name, color in _STAGES.items():
        height = np.array([getattr(run, f"{name}_ms") or 0.0 for run in runs])
        stages.bar(position, height, bottom=bottom, color=color, label=name, width=0.8)
        bottom += height
    rest = np.maximum(np.array([run.total_ms for run in runs]) - bottom, 0.0)
    if len(runs) and rest.max() > 0.005 * bottom.max():
        stages.bar(position, rest, bottom=bottom, color="#dddddd", label="not told apart", width=0.8)
    stages.set(ylabel="milliseconds", title="Time of each stage")
    _legend(stages)
    for name, color, style, label in (
        ("rss", _RSS, "-o", "RSS"),
        ("uss", _USS, "-o", "USS"),
        ("peak_rss", "#333333", "--", "peak RSS"),
    ):
        values = [getattr(run, name) for run in runs]
        if values and None not in values:
            memory.plot(position, np.array(values) / MB, style, color=color, markersize=3, label=label)
    memory.set(ylabel="MB", title="Memory after each transcription")
    memory.set_ylim(0, 1.15 * memory.get_ylim()[1])
    _legend(memory)
    for axis in (stages, memory):
        axis.set_xlabel("transcription")
        axis.set_xlim(0.4, max(len(runs), 1) + 0.6)
        axis.xaxis.get_major_locator().set_params(integer=True)
    _plot_tokens(tokens, runs)
    figure.align_ylabels()
    figure.suptitle(f"{os.path.basename(report.model['path'])}, {_threads(report)}", fontsize=12)
    _save(figure, path)


def _plot_tokens(axis: Any, runs: Sequence[bench.Iteration]) -> None:
    """The time between neighbouring tokens, by the token's place: each run faint, the median strong."""
    steps = [np.diff(run.token_ms) for run in runs if len(run.token_ms) > 1]
    for values in steps:
        axis.plot(np.arange(2, len(values) + 2), values, color=_RSS, alpha=min(0.5, 4 / len(steps)), lw=0.8)
    if steps:
        longest = max(map(len, steps))
        medians = [np.median([v[i] for v in steps if len(v) > i]) for i in range(longest)]
        axis.plot(np.arange(2, longest + 2), medians, color="#cc3311", lw=1.5, label="median")
        axis.set_ylim(0, 1.3 * float(np.percentile(np.concatenate(steps), 99)))
        _legend(axis)
    axis.set(xlabel="token of the answer", ylabel="milliseconds", title="Time of each decode step")
    axis.xaxis.get_major_locator().set_params(integer=True)


def _threads(report: bench.Report) -> str:
    threads = report.model.get("info", {}).get("threads") or report.settings["threads"]
    return f"{threads} threads" if threads else "default threads"


def plot_leaks(report: leaks.Report, path: Path) -> None:
    """Memory over the repetitions: a row for each subject, a column for each way. Raises as ``plot_bench``."""
    rows = list(report.subjects.items())
    columns = max((len(runs) for _, runs in rows), default=1)
    figure, axes = _figure(max(len(rows), 1), columns)
    for row, (subject, runs) in enumerate(rows):
        for column, run in enumerate(runs):
            _plot_run(axes[row, column], os.path.basename(subject), run)
        for axis in axes[row, len(runs) :]:
            axis.set_visible(False)
    if rows:  # one legend for all: the lines mean the same everywhere
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=5, frameon=False, fontsize=9)
    _save(figure, path)


def _plot_run(axis: Any, subject: str, run: leaks.Run) -> None:
    repetition = np.arange(1, len(run.samples) + 1)
    for name, color, label in (
        ("rss", _RSS, "RSS"),
        ("uss", _USS, "USS"),
        ("malloc", "#ee8866", "malloc in use"),
    ):
        values = [getattr(sample, name) for sample in run.samples]
        if values and None not in values:
            axis.plot(repetition, np.array(values) / MB, color=color, label=label, lw=1.3)
    if run.warmup and run.samples:
        axis.axvspan(0.5, run.warmup + 0.5, color="#eeeeee", zorder=0, label="warm-up")
    if run.before is not None:
        axis.axhline(run.before.rss / MB, color=_PEAK, ls=":", lw=1, label="RSS before the first load")
    quantity = run.quantities.get("uss") or run.quantities.get("rss")
    fitted = quantity.growth if quantity else None
    slope = (
        f"\nUSS {fitted.slope / 1e3:+.2f} kB a repetition ({fitted.low / 1e3:+.2f} to {fitted.high / 1e3:+.2f})"
        if fitted
        else ""
    )
    axis.set(xlabel="repetition", ylabel="MB")
    axis.set_ylim(0, 1.15 * axis.get_ylim()[1])
    axis.set_title(f"{subject}, {run.way}: {run.verdict}{slope}", fontsize=10)


def _figure(rows: int, columns: int) -> tuple[Any, Any]:
    """A figure and its axes [rows, columns], drawn without a display."""
    extra("matplotlib")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10 if columns == 1 else 6 * columns, 3.3 * rows + 0.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="y", color="#e6e6e6", lw=0.8)
        axis.set_axisbelow(True)
    return figure, axes


def _legend(axis: Any) -> None:
    """Beside the axes, where it hides nothing."""
    if axis.get_legend_handles_labels()[0]:
        axis.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=9)


def _save(figure: Any, path: Path) -> None:
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=130)
    try:
        replace(path, picture.getvalue())
    except OutputError as error:
        raise Qwen3AsrError(f"{error}; name another file with --plot") from None
