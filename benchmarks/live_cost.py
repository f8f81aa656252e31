"""What live speech costs, step by step and over hours: ``python benchmarks/live_cost.py AUDIO... --model M --hours 3
--picture live.png``.

The clips are joined and fed as live utterances of ``--utterance`` seconds, ``--chunk`` seconds a step, each step after
the hypothesis of the one before. Printed and drawn: the time of a step by the utterance's length so far, with what the
whole hypothesis costs when nothing is kept; the share of real time and the memory over the session; how many windows of
the encoder were computed anew, and how many steps of the decoder drafts have saved.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from qwen3asr_native import Model, audio
from qwen3asr_native.engine import RunResult
from qwen3asr_native.engine.shim import Step
from qwen3asr_native.options import Options

RATE = audio.SAMPLE_RATE
COUNTERS = ("encoded_windows", "recomputed_windows", "drafted_tokens", "saved_steps", "new_tokens")


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("files", nargs="+")
    words.add_argument("--model")
    words.add_argument("--kernels")
    words.add_argument("--threads", type=int)
    words.add_argument("--hours", type=float, default=0.05)
    words.add_argument("--utterance", type=float, default=25.0)
    words.add_argument("--chunk", type=float, default=1.0)
    words.add_argument("--max-new-tokens", type=int)
    words.add_argument("--output", type=Path)
    words.add_argument("--picture", type=Path)
    given = words.parse_args()
    result = measure(given)
    for name in (
        "kernels",
        "threads",
        "real_time_factor",
        "any_step_ms",
        "step_ms",
        "whole_ms",
        *COUNTERS,
        "memory_growth",
    ):
        print(f"{name}: {result[name]}")
    if given.output:
        given.output.write_text(json.dumps(result))
    if given.picture:
        draw(result, given.picture)


def measure(given: argparse.Namespace) -> dict[str, Any]:
    sound = np.concatenate([audio.load(file) for file in given.files])
    model = Model(given.model, kernels=given.kernels, threads=given.threads)
    process = psutil.Process()
    options = Options(live=True, max_new_tokens=given.max_new_tokens)
    block, steps = int(given.chunk * RATE), int(given.utterance / given.chunk)
    source = cycle(np.array_split(sound, max(1, len(sound) // block)))
    by_length: list[list[float]] = [[] for _ in range(steps)]
    session: list[tuple[float, float, int]] = []  # seconds of audio, share of real time, bytes
    counters = dict.fromkeys(COUNTERS, 0)
    whole: list[float] = []
    seconds, last = 0.0, []
    while seconds < given.hours * 3600:
        run = model._engine.call().submit(np.zeros(0, np.float32), options)
        spent = fed = 0.0
        last = []
        for number in range(steps):
            part = next(source)
            last.append(part)
            begin = time.perf_counter()
            run.feed(part, last=number == steps - 1)
            timings = _read(run)
            took = time.perf_counter() - begin
            by_length[number].append(1e3 * took)
            spent += took
            fed += len(part) / RATE
            counters["new_tokens"] += int(timings["new_tokens"])
        for name in COUNTERS[:-1]:
            counters[name] += int(timings[name])
        seconds += fed
        session.append((seconds, spent / fed, process.memory_info().rss))
        if len(whole) < 5:
            whole.append(_whole(model, np.concatenate(last), options))
    early = session[: max(1, len(session) // 10)]
    late = session[-max(1, len(session) // 10) :]
    return {
        "kernels": model.info["kernels"],
        "threads": model.info["threads"],
        "chunk": given.chunk,
        "real_time_factor": statistics.mean(share for _, share, _ in session),
        "real_time_factor_early_late": [statistics.median(s for _, s, _ in part) for part in (early, late)],
        "step_ms": [statistics.median(times) for times in by_length],
        "any_step_ms": [float(np.percentile([t for ts in by_length for t in ts], q)) for q in (50, 90, 100)],
        "whole_ms": statistics.median(whole),
        "session": session,
        "memory_growth": max(m for *_, m in late) - max(m for *_, m in early),
        **counters,
    }


def _read(run: Any) -> dict[str, float]:
    while True:
        event = run.next()
        if isinstance(event, Step):
            return event.measured
        if isinstance(event, RunResult):
            return event.measured


def _whole(model: Model, sound: Any, options: Options) -> float:
    """Milliseconds of the last hypothesis when nothing is kept."""
    begin = time.perf_counter()
    run = model._engine.call().submit(sound, options._replace(live=False))
    while not isinstance(run.next(), RunResult):
        pass
    return 1e3 * (time.perf_counter() - begin)


def draw(result: dict[str, Any], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, middle, right) = pyplot.subplots(1, 3, figsize=(13, 3.6), layout="constrained")
    lengths = [(i + 1) * result["chunk"] for i in range(len(result["step_ms"]))]
    left.plot(lengths, result["step_ms"], color="#4477aa", label="a step")
    left.plot(
        lengths[-1:], [result["whole_ms"]], "o", color="#ee8866", label="the last one, all computed anew"
    )
    left.set(xlabel="seconds of the utterance so far", ylabel="ms", ylim=(0, None))
    left.legend(frameon=False)
    minutes = [seconds / 60 for seconds, *_ in result["session"]]
    middle.plot(minutes, [share for _, share, _ in result["session"]], color="#4477aa", linewidth=0.8)
    middle.set(xlabel="minutes of the session", ylabel="share of real time", ylim=(0, None))
    right.plot(minutes, [memory / 1e6 for *_, memory in result["session"]], color="#44aa99")
    right.set(xlabel="minutes of the session", ylabel="resident memory, MB", ylim=(0, None))
    for axes in (left, middle, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
