"""The leak laboratory: repeats inference in child processes and says whether anything grows.

>>> from qwen3asr_native import leaks
>>> report = leaks.examine(repetitions=100)
>>> report.verdict
'flat'

Two ways: ``recreate`` (load, run, destroy) and ``reuse`` (load once; restart and run). Each runs in a process of its own,
so that a crash of another build of chatllm.cpp is a finding.

The rule for a quantity. Of its values after the warm-up, the growth for each repetition is estimated with a 95 %
confidence interval (``qwen3asr_native._measure.growth``). It is ``flat`` when the interval ends below the smallest
growth that counts (5 kB, or 0.01 of a descriptor, thread or mapped file), ``grows`` when the interval begins above zero
and ends above that, and ``unclear`` otherwise: more repetitions will tell.
"""

from __future__ import annotations

import io
import json
import os
import queue
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np

from ..errors import ArgumentError
from ..files import hub
from ..files.output import replace, temporary_folder
from ..interpreter import command
from .measure import MB, Growth, Memory, checksum, extra, growth, machine, versions

WAYS = ("recreate", "reuse")
# The smallest growth for each repetition that counts; what rounds to 0.00 MB does not.
SMALLEST_BYTES = 0.005 * MB
SMALLEST_COUNT = 0.01
# What may stay after the last destroy: the interpreter's and the C library's own caches.
MOST_KEPT_BYTES = 5 * MB

_COUNTS = ("mapped_files", "descriptors", "threads")
# RSS and the sizes of mappings are shown only: they follow what other processes share, and USS judges them better.
_JUDGED = {
    "uss": "USS",
    "malloc": "malloc's use",
    "mapped_files": "the number of mapped files",
    "descriptors": "the number of descriptors",
    "threads": "the number of threads",
}
QUANTITIES = ("rss", "uss", "malloc", "malloc_held", "mapped", *_COUNTS)
_BADNESS = ("flat", "unclear", "keeps", "grows", "fails", "hangs", "crashes")


@dataclass(frozen=True)
class Quantity:
    """How one quantity moved.

    Attributes:
        warmup: Change over the warm-up.
        growth: Growth for each repetition after it; None with too few repetitions.
        last: Value after the last repetition.
        verdict: "flat", "grows" or "unclear"; None when the quantity is shown without judging.
    """

    warmup: float
    growth: Growth | None
    last: float
    verdict: str | None


@dataclass
class Run:
    """One way of repeating, in one child process.

    Attributes:
        way: "recreate" or "reuse".
        warmup: Repetitions that were left out of the growth.
        before: Memory before the first load.
        samples: Memory after each repetition.
        after: Memory after the last destroy.
        ending: "completed", "crashes", "fails", "hangs" or "interrupted".
        phase: What was being done at the end: "load", "run", "destroy" or "exit".
        message: What is known about an ending that is not "completed".
    """

    way: str
    warmup: int
    before: Memory | None = None
    samples: list[Memory] = field(default_factory=list)
    after: Memory | None = None
    ending: str = "completed"
    phase: str = "start"
    message: str = ""

    @property
    def quantities(self) -> dict[str, Quantity]:
        return {
            name: _quantity(name, [float(getattr(sample, name)) for sample in self.samples], self.warmup)
            for name in QUANTITIES
            if self.samples and getattr(self.samples[0], name) is not None
        }

    @property
    def kept_bytes(self) -> int | None:
        """What stayed after the last destroy, compared with before the first load (USS, else RSS)."""
        if self.before is None or self.after is None:
            return None
        if self.before.uss is not None and self.after.uss is not None:
            return self.after.uss - self.before.uss
        return self.after.rss - self.before.rss

    @property
    def findings(self) -> list[str]:
        """What is wrong, a few words each."""
        found = []
        if self.ending not in ("completed", "interrupted"):
            found.append(self.message)
        for name, quantity in self.quantities.items():
            if quantity.verdict == "grows" and quantity.growth is not None:
                found.append(f"{_JUDGED[name]} grows by {amount(name, quantity.growth.slope)} a repetition")
        if self.kept_bytes is not None and self.kept_bytes > MOST_KEPT_BYTES:
            found.append(f"{self.kept_bytes / MB:.1f} MB stay after the last destroy")
        if self.before is not None and self.after is not None:
            for name in ("descriptors", "threads"):
                left = getattr(self.after, name) - getattr(self.before, name)
                if left > 0:
                    found.append(f"{left} {name} stay after the last destroy")
        return found

    @property
    def verdict(self) -> str:
        """The worst of: "flat", "unclear", "keeps" (something stays after the last destroy), "grows", "fails", "hangs", "crashes"."""
        verdicts = [quantity.verdict for quantity in self.quantities.values() if quantity.verdict] or [
            "unclear"
        ]
        if self.ending == "interrupted":
            verdicts.append("unclear")
        elif self.ending != "completed":
            verdicts.append(self.ending)
        elif self.findings:
            verdicts.append("keeps")
        return max(verdicts, key=_BADNESS.index)

    def to_dict(self) -> dict[str, Any]:
        return {
            **asdict(self),
            "quantities": {
                name: {**asdict(q), "growth": q.growth._asdict() if q.growth else None}
                for name, q in self.quantities.items()
            },
            "kept_bytes": self.kept_bytes,
            "findings": self.findings,
            "verdict": self.verdict,
        }


@dataclass
class Report:
    """The runs of each subject: the built-in engine, or the path of a library."""

    settings: dict[str, Any]
    machine: dict[str, Any]
    versions: dict[str, str]
    subjects: dict[str, list[Run]] = field(default_factory=dict)
    interrupted: bool = False

    @property
    def verdict(self) -> str:
        """The worst verdict of all runs."""
        verdicts = [run.verdict for runs in self.subjects.values() for run in runs]
        return max(verdicts, key=_BADNESS.index) if verdicts else "unclear"

    def to_dict(self) -> dict[str, Any]:
        return {
            "settings": self.settings,
            "machine": self.machine,
            "versions": self.versions,
            "rule": {
                "confidence": 0.95,
                "smallest_bytes": SMALLEST_BYTES,
                "smallest_count": SMALLEST_COUNT,
                "most_kept_bytes": MOST_KEPT_BYTES,
            },
            "subjects": {name: [run.to_dict() for run in runs] for name, runs in self.subjects.items()},
            "verdict": self.verdict,
            "interrupted": self.interrupted,
        }


def amount(name: str, value: float) -> str:
    """A value of a quantity for readers: megabytes, or a count."""
    number = round(value if name in _COUNTS else value / MB, 2) + 0.0  # + 0.0: no negative zero
    return f"{number:.2f}" if name in _COUNTS else f"{number:.2f} MB"


def _quantity(name: str, values: Sequence[float], warmup: int) -> Quantity:
    settled = values[warmup:]
    fitted = growth(settled)
    verdict = None
    if name in _JUDGED:
        verdict = judge(fitted, SMALLEST_COUNT if name in _COUNTS else SMALLEST_BYTES)
    return Quantity(values[min(warmup, len(values) - 1)] - values[0], fitted, values[-1], verdict)


def judge(fitted: Growth | None, smallest: float) -> str:
    """The rule of this module for one quantity."""
    if fitted is None:
        return "unclear"
    if fitted.high < smallest:
        return "flat"
    return "grows" if fitted.low > 0 else "unclear"


def examine(
    model: str | os.PathLike[str] | None = None,
    audio: str | os.PathLike[str] | None = None,
    *,
    repetitions: int = 100,
    warmup: int | None = None,
    ways: Sequence[str] = WAYS,
    library: str | os.PathLike[str] | None = None,
    compare: bool = False,
    threads: int | None = None,
    max_new_tokens: int = 32,
    timeout: float = 600.0,
    progress: Callable[[str, str, int], None] | None = None,
) -> Report:
    """Repeats inference and watches what grows.

    Args:
        model: As for ``qwen3asr_native.Model``.
        audio: File to recognize; None makes two seconds of a soft tone.
        repetitions: For each way.
        warmup: Repetitions at the beginning that do not count; None takes a tenth, at least 5.
        ways: Of ``WAYS``.
        library: Another build of chatllm.cpp to examine instead of the built-in engine.
        compare: Examine the built-in engine too.
        threads: Threads to compute with; None takes the processors that the process may use.
        max_new_tokens: Limit of tokens of an answer.
        timeout: Seconds without a sign of life after which a child is ended.
        progress: Called with subject, way and number of the finished repetition.

    After Ctrl-C the report has what was measured so far.

    Raises:
        ArgumentError: An option has a value that it cannot have, or psutil is missing.
        ModelFileError, AudioError: The model or the audio is missing.
    """
    extra("psutil")
    if repetitions < 1:
        raise ArgumentError(f"repetitions must be at least 1, not {repetitions}")
    if warmup is None:
        warmup = min(max(5, repetitions // 10), repetitions // 2)
    if not 0 <= warmup < repetitions:
        raise ArgumentError(f"the warm-up must be from 0 to {repetitions - 1} repetitions, not {warmup}")
    unknown = [way for way in ways if way not in WAYS]
    if unknown:
        raise ArgumentError(f"there is no way '{unknown[0]}'; there are {' and '.join(WAYS)}")
    if compare and library is None:
        raise ArgumentError("there is nothing to compare the built-in engine with; name a library")
    path = hub.resolve(model).resolve()
    subjects: dict[str, str | None] = {}
    if library is not None:
        if not Path(library).is_file():
            raise ArgumentError(f"the library '{os.fspath(library)}' does not exist")
        subjects[os.fspath(library)] = os.path.abspath(library)
    if library is None or compare:
        subjects["built-in engine"] = None
    report = Report(
        settings={
            "model": os.fspath(path),
            "model_sha256": checksum(path),
            "audio": os.fspath(audio) if audio is not None else "2 s of a tone",
            "repetitions": repetitions,
            "warmup": warmup,
            "threads": threads,
            "max_new_tokens": max_new_tokens,
        },
        machine=machine(),
        versions=versions(),
    )
    with temporary_folder("qwen3asr-leaks-") as folder:
        job: dict[str, Any] = {
            "model": os.fspath(path),
            "audio": _checked_audio(audio, folder),
            "repetitions": repetitions,
            "threads": threads,
            "max_new_tokens": max_new_tokens,
        }
        for subject, library_path in subjects.items():
            runs = report.subjects.setdefault(subject, [])
            for way in ways:
                run = Run(way, warmup)
                runs.append(run)
                child = _Child({**job, "library": library_path, "way": way}, timeout)
                try:
                    for repetition in child.follow(run):
                        if progress is not None:
                            progress(subject, way, repetition)
                except KeyboardInterrupt:
                    run.ending, run.message = "interrupted", "interrupted"
                    report.interrupted = True
                    return report
    return report


def _checked_audio(audio: str | os.PathLike[str] | None, folder: Path) -> str:
    """The path of the audio; readable, so that a child's failure is not the file's."""
    import soundfile

    from .. import audio as audio_input

    if audio is not None:
        audio_input.load(audio)
        return os.path.abspath(audio)
    path, tone, content = folder / "tone.wav", 0.1 * np.sin(np.arange(32000) * 0.2), io.BytesIO()
    soundfile.write(content, tone.astype(np.float32), audio_input.SAMPLE_RATE, format="WAV")
    replace(path, content.getvalue())
    return os.fspath(path)


class _Child:
    """A worker process, and what it says."""

    def __init__(self, job: dict[str, Any], timeout: float) -> None:
        self._job, self._timeout = job, timeout

    def follow(self, run: Run) -> Iterator[int]:
        """Fills in the run; yields the number of each finished repetition."""
        with tempfile.TemporaryFile() as errors:
            # A session of its own: Ctrl-C is for the parent, which then ends the child.
            process = subprocess.Popen(
                command("qwen3asr_native.lab.leak_worker", json.dumps(self._job)),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
            )
            try:
                yield from self._listen(process, run)
                self._end(process, run, errors)
            finally:
                if process.poll() is None:
                    process.kill()
                process.wait()

    def _listen(self, process: subprocess.Popen[bytes], run: Run) -> Iterator[int]:
        assert process.stdout is not None
        lines: queue.Queue[bytes | None] = queue.Queue()
        threading.Thread(target=_pump, args=(process.stdout, lines), daemon=True).start()
        while True:
            try:
                line = lines.get(timeout=self._timeout)
            except queue.Empty:
                run.ending = "hangs"
                run.message = (
                    f"no sign of life for {self._timeout:g} s in '{run.phase}' of repetition {_current(run)}"
                )
                process.kill()
                return
            if line is None:
                return
            if _take(run, json.loads(line)):
                yield len(run.samples)

    def _end(self, process: subprocess.Popen[bytes], run: Run, errors: IO[bytes]) -> None:
        if run.ending != "completed":
            return
        try:
            status = process.wait(self._timeout)
        except subprocess.TimeoutExpired:
            run.ending, run.message = "hangs", "the process does not end"
            return
        if status == 0:
            return
        run.ending = "crashes"
        errors.seek(0)
        lines = errors.read().decode("utf-8", "replace").split("\n")
        words = "; ".join(line.strip() for line in lines if line.strip())[-200:]
        where = (
            "when it ended, after the last destroy"
            if run.phase == "exit"
            else f"in '{run.phase}' of repetition {_current(run)}"
        )
        run.message = f"the process died of {_cause(status)} {where}" + (f" (… {words})" if words else "")


def _current(run: Run) -> int:
    return len(run.samples) + (
        run.phase in ("load", "run") or (run.way == "recreate" and run.phase == "destroy")
    )


def _pump(stream: IO[bytes], lines: queue.Queue[bytes | None]) -> None:
    with stream:
        for line in stream:
            lines.put(line)
    lines.put(None)


def _take(run: Run, event: dict[str, Any]) -> bool:
    """Notes an event; whether a repetition has ended."""
    kind = event["event"]
    if kind == "phase":
        run.phase = event["phase"]
    elif kind == "error":
        run.ending, run.message = (
            "fails",
            f"'{run.phase}' of repetition {_current(run)} fails: {event['message']}",
        )
    elif kind == "sample":
        run.samples.append(Memory(**event["memory"]))
    elif kind == "before":
        run.before = Memory(**event["memory"])
    elif kind == "after":
        run.after = Memory(**event["memory"])
    return bool(kind == "sample")


def _cause(status: int) -> str:
    if status < 0:
        try:
            return signal.Signals(-status).name
        except ValueError:
            return f"signal {-status}"
    return f"exit status {status}"
