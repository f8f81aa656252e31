"""Load on a server: clients that ask one after the other, and how long they wait.

Every request is a stream of events, so that the time to the first one can be read. The same clips can be put through the
library in this process, for comparison.
"""

from __future__ import annotations

import itertools
import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ArgumentError, Qwen3AsrError
from .measure import extra

PATH = "/v1/audio/transcriptions"
_SAMPLE_SECONDS = 1.0
_MOST_MESSAGES = 20


@dataclass(frozen=True)
class Answer:
    """One request. Times in seconds; ``begin`` since the start of the measurement."""

    begin: float
    seconds: float
    first_seconds: float | None
    audio_seconds: float
    error: str | None


@dataclass
class Report:
    """What a measurement found.

    Attributes:
        settings: What was asked for.
        seconds: Length of the measurement.
        answers: Every request, in the order of its end.
        memory: Resident memory of the server, bytes, with its time: pairs (seconds, bytes).
        library_audio_per_second: Audio seconds per second of ``Model.transcribe_many`` with the same clips; None when it
            was not measured.
        interrupted: Whether Ctrl-C ended it.
    """

    settings: dict[str, Any]
    seconds: float = 0.0
    answers: list[Answer] = field(default_factory=list)
    memory: list[tuple[float, float]] = field(default_factory=list)
    library_audio_per_second: float | None = None
    interrupted: bool = False

    def summary(self) -> dict[str, Any]:
        """Percentiles of the good requests in seconds, rates, and the errors with their counts."""
        good = [answer for answer in self.answers if answer.error is None]
        errors: dict[str, int] = {}
        for answer in self.answers:
            if answer.error is not None and (answer.error in errors or len(errors) < _MOST_MESSAGES):
                errors[answer.error] = errors.get(answer.error, 0) + 1
        resident = [value for _, value in self.memory]
        return {
            "requests": len(self.answers),
            "failed": len(self.answers) - len(good),
            "errors": errors,
            "latency": _percentiles([answer.seconds for answer in good]),
            "first_event": _percentiles([a.first_seconds for a in good if a.first_seconds is not None]),
            "audio_per_second": sum(answer.audio_seconds for answer in good) / self.seconds
            if self.seconds
            else 0.0,
            "requests_per_second": len(good) / self.seconds if self.seconds else 0.0,
            "memory_first": resident[0] if resident else None,
            "memory_last": resident[-1] if resident else None,
            "memory_most": max(resident, default=None),
        }

    def to_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        return {"summary": self.summary(), **asdict(self)}


def run(
    files: Sequence[str],
    url: str,
    *,
    concurrency: int,
    requests: int | None = None,
    seconds: float | None = None,
    key: str | None = None,
    progress: Callable[[str, int], None] = lambda title, done: None,
) -> Report:
    """Asks a server from ``concurrency`` clients at a time, each with the next file, until ``requests`` or ``seconds``.

    Args:
        files: Audio files.
        url: Address of the server, without a path.
        concurrency: Clients.
        requests: How many requests; None: as many as fit into ``seconds``.
        seconds: How long new requests are begun.
        key: API key of the server.
        progress: Called with a title and the number of finished requests.

    Raises:
        ArgumentError: A file cannot be read, the server does not answer, or the package httpx is missing.
    """
    httpx = extra("httpx")
    clips = [(Path(file).name, _content(file), _seconds(file)) for file in files]
    headers = {"authorization": f"Bearer {key}"} if key else {}
    report = Report(
        {
            "url": url,
            "files": list(files),
            "concurrency": concurrency,
            "requests": requests,
            "seconds": seconds,
        }
    )
    stop, lock = threading.Event(), threading.Lock()
    numbers = itertools.count()
    with httpx.Client(
        base_url=url, headers=headers, timeout=600, limits=httpx.Limits(max_connections=None)
    ) as client:
        try:
            client.get("/health").raise_for_status()
        except httpx.HTTPError as error:
            raise ArgumentError(f"the server at {url} does not answer: {error}") from None
        begin = time.monotonic()

        def ask() -> None:
            while not stop.is_set():
                number = next(numbers)
                if (requests is not None and number >= requests) or (
                    seconds and time.monotonic() - begin > seconds
                ):
                    return
                answer = _ask(httpx, client, clips[number % len(clips)], begin)
                with lock:
                    report.answers.append(answer)
                    progress(clips[number % len(clips)][0], len(report.answers))

        clients = [threading.Thread(target=ask, daemon=True) for _ in range(concurrency)]
        for thread in clients:
            thread.start()
        try:
            while any(thread.is_alive() for thread in clients):
                _note_memory(httpx, client, report, begin)
                clients[0].join(_SAMPLE_SECONDS) if clients[0].is_alive() else time.sleep(
                    _SAMPLE_SECONDS / 10
                )
        except KeyboardInterrupt:
            report.interrupted = True
            stop.set()
            for thread in clients:
                thread.join()
        report.seconds = time.monotonic() - begin
        _note_memory(httpx, client, report, begin)
    return report


def compare(report: Report, model: str | os.PathLike[str] | None, threads: int | None = None) -> None:
    """Puts the clips of a report, as often as they were asked for, through ``Model.transcribe_many`` in this process."""
    from ..model import Model

    files = report.settings["files"]
    count = max(len(report.answers), len(files))
    with Model(model, threads=threads) as opened:
        audios: Iterator[str] = itertools.islice(itertools.cycle(files), count)
        begin = time.monotonic()
        total = 0.0
        for result in opened.transcribe_many(audios):
            if isinstance(result, Qwen3AsrError):
                raise result
            total += result.timings.audio_ms / 1000
        report.library_audio_per_second = total / (time.monotonic() - begin)


def _ask(httpx: Any, client: Any, clip: tuple[str, bytes, float], origin: float) -> Answer:
    name, content, audio_seconds = clip
    begin = time.monotonic()
    first, error = None, "the stream ended without its text"
    try:
        with client.stream(
            "POST", PATH, files={"file": (name, content)}, data={"stream": "true"}
        ) as response:
            if response.status_code != 200:
                error = f"status {response.status_code}"
            else:
                for line in response.iter_lines():
                    if not line:
                        continue
                    first = first or time.monotonic()
                    event = json.loads(line[len("data: ") :])
                    if "error" in event:
                        error = event["error"]["message"]
                    elif event["type"] == "transcript.text.done":
                        error = ""
    except httpx.HTTPError as failure:
        error = f"{type(failure).__name__}: {failure}"
    end = time.monotonic()
    return Answer(begin - origin, end - begin, first and first - begin, audio_seconds, error or None)


def _note_memory(httpx: Any, client: Any, report: Report, begin: float) -> None:
    try:
        lines = client.get("/metrics").text.splitlines()
    except httpx.HTTPError:
        return
    for line in lines:
        if line.startswith("process_resident_memory_bytes "):
            report.memory.append((time.monotonic() - begin, float(line.split()[1])))


def _percentiles(values: Sequence[float]) -> dict[str, float] | None:
    if not values:
        return None
    return {f"p{share}": float(np.percentile(values, share)) for share in (50, 90, 99)}


def _content(file: str) -> bytes:
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise ArgumentError(f"'{file}' cannot be read: {error.strerror}") from None


def _seconds(file: str) -> float:
    from ..audio import SAMPLE_RATE, load

    return len(load(file)) / SAMPLE_RATE
