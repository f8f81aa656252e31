"""How speed grows with threads and with utterances at once: the same clips in many ways, as ratios of one process.

>>> from qwen3asr_native.lab import scaling
>>> report = scaling.run(["speech.wav"], threads=[2], at_once=[1, 8], rounds=3)
>>> report.rows[-1].audio_per_second / report.rows[0].audio_per_second
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import cycle, islice
from typing import TYPE_CHECKING, Any

from ..audio import SAMPLE_RATE
from ..errors import ArgumentError, Qwen3AsrError
from ..files import hub
from ..model import Model
from .bench import Settings, read_clip
from .measure import extra, machine, model_file, versions

if TYPE_CHECKING:
    import os
    from pathlib import Path

    from ..audio import Pcm
    from ..transcript import Transcript

_SAMPLE_SECONDS = 0.01


@dataclass(frozen=True)
class Row:
    """One way to compute the clips; medians over the rounds.

    Attributes:
        threads: That compute.
        at_once: Utterances that were under way together.
        audio_per_second: Seconds of audio for each second.
        first_token_ms: From an audio's turn to its first token; waiting included where others are before it.
        step_ms: Between two tokens of an utterance: one step of the decoder, with a row for each that is decoded.
        tokens_per_second: Of all utterances together.
        rss: The most memory of the process meanwhile, the first time, bytes.
    """

    threads: int
    at_once: int
    audio_per_second: float
    first_token_ms: float
    step_ms: float | None
    tokens_per_second: float
    rss: int


@dataclass
class Report:
    """What was measured; ``rows[0]`` is what the others are compared with."""

    settings: dict[str, Any]
    machine: dict[str, Any]
    versions: dict[str, str]
    model: dict[str, Any]
    rows: list[Row] = field(default_factory=list)
    interrupted: bool = False

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def run(
    files: Sequence[str | os.PathLike[str]],
    model: str | os.PathLike[str] | None = None,
    *,
    threads: Sequence[int | None] = (None,),
    at_once: Sequence[int] = (1,),
    rounds: int = 3,
    settings: Settings | None = None,
    progress: Callable[[str, int], None] | None = None,
) -> Report:
    """Computes the same clips with each number of threads, and with each number of utterances at once.

    For each number of threads a model is loaded; then, after a round of which only the memory is measured, each round takes
    every number of utterances in turn, so that a machine that slows down does so for all of them. A round has as many clips
    as the largest number needs to be under way twice over; files are repeated where there are fewer.

    Args:
        files: Audio files.
        model: As for ``qwen3asr_native.Model``.
        threads: Numbers of threads; None: all processors.
        at_once: Numbers of utterances; the smallest is computed first, so that its memory is its own.
        rounds: Of which the medians are taken.
        settings: How to transcribe; its ``threads`` is not used.
        progress: Called with a title and the number of rounds done.

    After Ctrl-C the report has the rows that were complete.

    Raises:
        ArgumentError: An option has a value that it cannot have, or a library of the extra ``bench`` is missing.
        ModelFileError, AudioError, LanguageError: As for a transcription.
    """
    settings = settings or Settings()
    if not files or rounds < 1 or not threads or not at_once or min(at_once) < 1:
        raise ArgumentError("a comparison needs an audio file, a round, and numbers of at least 1")
    path = hub.resolve(model)
    clips = [read_clip(file) for file in files]
    report = Report(
        settings={**settings._asdict(), "threads": list(threads), "at_once": list(at_once), "rounds": rounds},
        machine=machine(),
        versions=versions(),
        model=model_file(path),
    )
    clips = list(islice(cycle(clips), max(len(clips), 2 * max(at_once) if max(at_once) > 1 else 1)))
    meter, done = _Meter(), 0
    try:
        for count in threads:
            found: dict[int, list[_Round]] = {number: [] for number in at_once}
            with _loaded(path, settings, count, max(at_once)) as loaded:
                used = int(loaded.info["threads"])
                for _ in range(rounds + 1):
                    for together in sorted(set(at_once)):
                        if progress is not None:
                            progress(f"{used} threads, {together} at once", done)
                        result = _round(loaded, clips, together, settings, meter)
                        done += 1
                        found[together].append(result)
            report.rows += [_row(used, together, found[together]) for together in at_once]
    except KeyboardInterrupt:
        report.interrupted = True
    return report


def _loaded(path: Path, settings: Settings, threads: int | None, batch: int) -> Model:
    return Model(
        path,
        threads=threads,
        kernels=settings.kernels,
        library=settings.library,
        context_length=settings.context_length,
        batch=batch,
    )


@dataclass(frozen=True)
class _Round:
    seconds: float
    rss: int
    transcripts: list[Transcript]


def _round(model: Model, clips: list[Pcm], together: int, settings: Settings, meter: _Meter) -> _Round:
    """All clips, ``together`` of them under way at every moment."""
    results: list[Transcript | Qwen3AsrError | None] = [None] * len(clips)
    waiting = iter(enumerate(clips))
    lock = threading.Lock()

    def work() -> None:
        while True:
            with lock:
                index, clip = next(waiting, (-1, None))
            if clip is None:
                return
            try:
                results[index] = model.transcribe(
                    clip,
                    settings.language,
                    context=settings.context,
                    script=settings.script,
                    itn=settings.itn,
                    max_new_tokens=settings.max_new_tokens,
                    sample_rate=SAMPLE_RATE,
                )
            except Qwen3AsrError as error:
                results[index] = error

    workers = [threading.Thread(target=work, daemon=True) for _ in range(together)]
    with meter:
        start = time.perf_counter()
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        seconds = time.perf_counter() - start
    for result in results:
        if isinstance(result, Qwen3AsrError):
            raise result
    return _Round(seconds, meter.most, [result for result in results if result is not None])  # type: ignore[misc]


def _row(threads: int, at_once: int, all_rounds: list[_Round]) -> Row:
    """The first round is the warm-up; memory is that of it, when no larger number had been at work yet."""
    warm_up, *rounds = all_rounds
    gaps = [
        later.elapsed_ms - earlier.elapsed_ms
        for result in rounds
        for transcript in result.transcripts
        for earlier, later in zip(transcript.tokens, transcript.tokens[1:])
    ]
    first = [
        transcript.timings.first_token_ms
        for result in rounds
        for transcript in result.transcripts
        if transcript.timings.first_token_ms is not None
    ]
    audio = [sum(t.timings.audio_ms for t in result.transcripts) / 1e3 / result.seconds for result in rounds]
    tokens = [sum(t.timings.new_tokens for t in result.transcripts) / result.seconds for result in rounds]
    return Row(
        threads=threads,
        at_once=at_once,
        audio_per_second=statistics.median(audio),
        first_token_ms=statistics.median(first) if first else 0.0,
        step_ms=statistics.median(gaps) if gaps else None,
        tokens_per_second=statistics.median(tokens),
        rss=warm_up.rss,
    )


class _Meter:
    """The most resident memory of this process while it is entered, looked at often."""

    def __init__(self) -> None:
        self._process = extra("psutil").Process()
        self.most = 0

    def __enter__(self) -> _Meter:
        self.most, self._stop = 0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            self.most = max(self.most, int(self._process.memory_info().rss))
            if self._stop.wait(_SAMPLE_SECONDS):
                return
