"""Hours of audio: memory, computing time and error rate over the length, and jobs that are killed and resumed.

    python benchmarks/hours.py [--model NAME] [--gaps silence,noise,music] curves PICTURE [--hours 0.1,0.5,1,2,3] [--rounds 3]
    python benchmarks/hours.py [--model NAME] kills [--moments 20] [--minutes 10]

The recordings are made of the clips in ``tests/data/clips`` with silence, noise and music of 2.5 to 8 s between them
(``qwen3asr_native.lab.hours``), minutes alike at each length. Each length is transcribed in a process of its own, after the
clips one by one, four times each with the room's noise around them. CPU seconds are those of ``transcribe`` alone, all
threads together, without loading the model and the network for voice activity. ``curves`` draws and prints; ``kills``
ends a job with SIGKILL at chance moments, resumes it after each, and compares its outputs with those of an unbroken run.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from qwen3asr_native.lab.hours import GAPS, Recording, clip_error_rate, in_room, read_clips, score

CLIPS = Path(__file__).resolve().parent.parent / "tests" / "data" / "clips"
FORMATS = "txt,srt,vtt,tsv,json,lrc"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model")
    parser.add_argument(
        "--gaps", default=",".join(GAPS), help="what is between the clips, for one and curves"
    )
    parts = parser.add_subparsers(dest="part", required=True)
    curves_parser = parts.add_parser("curves")
    curves_parser.add_argument("picture", type=Path)
    curves_parser.add_argument("--hours", default="0.1,0.5,1,2,3")
    curves_parser.add_argument(
        "--rounds", type=int, default=1, help="of all lengths; the least CPU time of each counts"
    )
    one_parser = parts.add_parser("one", help="a length alone, as JSON")
    one_parser.add_argument("hours", type=float)
    kills_parser = parts.add_parser("kills")
    kills_parser.add_argument("--moments", type=int, default=20)
    kills_parser.add_argument("--minutes", type=float, default=10)
    options = parser.parse_args()
    if options.part == "one":
        print(json.dumps(measure(options.hours, options.model, options.gaps)))
    elif options.part == "curves":
        lengths = [float(hours) for hours in options.hours.split(",")]
        rounds = [
            [_apart(hours, options.model, options.gaps) for hours in lengths] for _ in range(options.rounds)
        ]
        best = [min(rows, key=lambda row: row["cpu_seconds_an_hour"]) for rows in zip(*rounds)]
        print("the least of each length:", ", ".join(f"{row['cpu_seconds_an_hour']:.2f}" for row in best))
        curves(best, options.picture)
    else:
        kills(options.moments, options.minutes, options.model)


def _apart(hours: float, model: str | None, gaps: str) -> dict[str, Any]:
    command = [
        sys.executable,
        __file__,
        *(["--model", model] if model else []),
        "--gaps",
        gaps,
        "one",
        str(hours),
    ]
    row: dict[str, Any] = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    print(json.dumps(row), flush=True)
    return row


def measure(hours: float, name: str | None, gaps: str) -> dict[str, Any]:
    """One recording in this process: peak of memory in MB over that after a clip, CPU seconds for an hour, quality."""
    from qwen3asr_native import Model

    clips = read_clips(CLIPS)
    with tempfile.TemporaryDirectory() as folder, Model(name) as model:
        recording, path = Recording(clips, 3600 * hours, gaps.split(",")), Path(folder) / "recording.wav"
        recording.write(path)
        random = np.random.default_rng(0)
        alone = [
            [model.transcribe(in_room(clip, random), sample_rate=16000).text for _ in range(4)]
            for clip in clips
        ]
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        model.transcribe(np.concatenate(list(Recording(clips, 40, GAPS).blocks())), sample_rate=16000)
        cpu = time.process_time()
        whole = model.transcribe(path)
        cpu = time.process_time() - cpu
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    samples = round(whole.timings.audio_ms * 16)
    quality = asdict(score(recording.spoken, clips, whole.segments, samples))
    return {
        "hours": samples / 16000 / 3600,
        "memory_mb": (peak - before) / 1024,
        "cpu_seconds_an_hour": cpu / (samples / 16000 / 3600),
        "real_time_factor": whole.timings.real_time_factor,
        "segments": len(whole.segments),
        "retries": whole.timings.retries,
        "clips_error_rate": clip_error_rate(clips, alone, recording.spoken),
        **quality,
    }


def curves(rows: list[dict[str, Any]], picture: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 3, figsize=(11, 3.3), layout="constrained")
    hours = [row["hours"] for row in rows]
    axes[0].plot(hours, [row["memory_mb"] for row in rows], "-o", color="#4477aa")
    axes[0].axhline(60, color="#b0b0b0", ls=":")
    axes[0].set(title="Memory above a clip, MB", ylim=(0, None))
    axes[1].plot(hours, [row["cpu_seconds_an_hour"] for row in rows], "-o", color="#ee8866")
    axes[1].set(title="CPU seconds for an hour of audio", ylim=(0, None))
    axes[2].plot(hours, [100 * row["error_rate"] for row in rows], "-o", color="#44aa99", label="recording")
    single = [100 * row["clips_error_rate"] for row in rows]
    axes[2].plot(hours, single, "--", color="#333333", label="clips one by one")
    axes[2].set(title="Character errors, %", ylim=(0, None))
    axes[2].legend(frameon=False)
    for axis in axes:
        axis.set_xlabel("hours of audio")
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(picture, dpi=110)


def kills(moments: int, minutes: float, model: str | None) -> None:
    chance = random.Random(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        Recording(read_clips(CLIPS), 60 * minutes, seed=2).write(folder / "recording.wav")
        command = [sys.executable, "-m", "qwen3asr_native", "transcribe", "--format", FORMATS]
        command += [*(["--model", model] if model else []), str(folder / "recording.wav")]
        begin = time.monotonic()
        subprocess.run([*command, "--output-dir", str(folder / "whole")], check=True)
        needed = time.monotonic() - begin
        resumed = [*command, "--resume", "--output-dir", str(folder / "killed")]
        killed = 0
        # Each moment is of a job that begins anew; the job is resumed until it is done, and killed on the way again.
        while killed < moments:
            job = subprocess.Popen(resumed, stderr=subprocess.DEVNULL)
            try:
                job.wait(chance.uniform(0.2, 0.9) * needed)
            except subprocess.TimeoutExpired:
                job.kill()
                job.wait()
                killed += 1
            if job.returncode == 0 or killed == moments:
                subprocess.run(resumed, stderr=subprocess.DEVNULL, check=True)
                _compare(folder)
        print(f"killed at {killed} moments; outputs identical after each resumption to the end")


def _compare(folder: Path) -> None:
    """Ends the program when outputs differ; removes those of the killed job."""
    for path in sorted((folder / "whole").iterdir()):
        other = folder / "killed" / path.name
        if path.read_bytes() != other.read_bytes():
            sys.exit(f"{path.name} differs")
        other.unlink()
    left = [path.name for path in (folder / "killed").iterdir()]
    if left:
        sys.exit(f"{', '.join(left)} is left")


if __name__ == "__main__":
    main()
