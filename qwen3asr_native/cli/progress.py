"""A job on the terminal: a bar with speed and time left, a line for each fault, a summary at the end."""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from ..job import Watcher
from . import signals
from .terminal import note

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..job import Job, Recording, Source, Summary
    from ..transcript import Segment


def run_job(job: Job, sources: Sequence[Source]) -> bool:
    """Runs a job, shows how it goes, and says how it went; whether all recordings are whole now."""
    with ExitStack() as stack:
        job.watcher = _Shown(sources, stack)
        with signals.stopping(job.stop):
            summary = job.run()
    _say(summary)
    if summary.stopped:
        raise signals.Interrupted
    return not summary.failed


def _say(summary: Summary) -> None:
    parts = [f"{summary.done} done"]
    if summary.kept:
        parts.append(f"{summary.kept} there already")
    if summary.failed:
        parts.append(f"{len(summary.failed)} failed")
    if summary.cut:
        parts.append(f"{len(summary.cut)} with a text that is cut off")
    speed = ""
    if summary.audio_seconds and summary.seconds:
        speed = (
            f"; {clock(summary.audio_seconds)} of audio in {clock(summary.seconds)}, "
            f"{summary.audio_seconds / summary.seconds:.1f} times as fast as speech"
        )
    ended = "interrupted: " if summary.stopped else ""
    more = "; the same command with --resume goes on" if summary.stopped else ""
    note(f"qwen3asr: {ended}{', '.join(parts)}{speed}{more}")


def clock(seconds: float) -> str:
    """Hours, minutes and seconds."""
    minutes, rest = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"


class _Shown(Watcher):
    """What a job tells, on standard error. The bar is for terminals, and counts seconds of audio where they are known."""

    def __init__(self, sources: Sequence[Source], stack: ExitStack) -> None:
        self._bar = _Bar(sources, stack)

    def begin(self, source: Source) -> None:
        self._bar.begin(source)

    def segment(self, source: Source, segment: Segment, earlier: bool) -> None:
        self._bar.advance(source, segment.end, 0.0 if earlier else segment.end - segment.start)

    def end(self, recording: Recording) -> None:
        from .transcribe import remark

        self._bar.end(recording.source)
        failed = recording.error is not None
        remark(recording.source.name, recording.segments, recording.finish, recording.notes, failed)
        if failed:
            note(f"qwen3asr: {recording.error}")

    def note(self, sentence: str) -> None:
        note(f"qwen3asr: {sentence}")


class _Bar:
    def __init__(self, sources: Sequence[Source], stack: ExitStack) -> None:
        from rich.console import Console

        self._progress: Any = None
        console = Console(stderr=True)
        if not console.is_terminal or console.is_dumb_terminal:
            return
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self._lengths = {source: _length(source) for source in sources}
        self._known = sum(length for length in self._lengths.values() if length)
        self._begin, self._computed, self._passed, self._finished = time.monotonic(), 0.0, 0.0, 0
        self._total = len(sources)
        self._progress = stack.enter_context(
            Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.fields[place]}"),
                TimeRemainingColumn(),
                console=console,
                transient=True,
            )
        )
        self._task = self._progress.add_task("", total=self._known or None, place="")

    def begin(self, source: Source) -> None:
        if self._progress is not None:
            from rich.markup import escape

            from .terminal import safe

            name = safe(source.name)
            shown = name if len(name) <= 30 else f"...{name[-27:]}"
            self._progress.update(self._task, description=escape(shown))

    def advance(self, source: Source, end: float, computed: float) -> None:
        """A recording is recognized up to ``end``, seconds, of which ``computed`` were made now."""
        if self._progress is not None:
            self._computed += computed
            speed = self._computed / max(1e-9, time.monotonic() - self._begin)
            known = self._lengths[source]
            done = self._passed + min(end, known or 0.0)
            place = f"{self._finished + 1}/{self._total}  {clock(done)}"
            if self._known:
                place += f" of {clock(self._known)}"
            self._progress.update(self._task, completed=done, place=f"{place}  {speed:.1f}x")

    def end(self, source: Source) -> None:
        if self._progress is not None:
            self._passed += self._lengths.get(source) or 0.0
            self._finished += 1
            self._progress.update(self._task, completed=self._passed)


def _length(source: Source) -> float | None:
    """Seconds, where the header tells them."""
    if not os.path.isfile(source.name):
        return None
    try:
        import soundfile

        return float(soundfile.info(source.name).duration)
    except Exception:  # whatever a stranger's file does to it, a bar is not worth an error
        return None
