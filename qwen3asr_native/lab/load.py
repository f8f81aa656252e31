"""Load on a server: clients that ask one after the other, and how long they wait.

Every request is a stream of events, so that the time to the first one can be read, unless plain answers are wanted. The same clips can be put through the
library in this process, for comparison.
"""

from __future__ import annotations

import contextlib
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
        seconds: Length of the measurement; when the library had its turns, of the requests.
        answers: Every request, in the order of its end.
        memory: Resident memory of the server, bytes, with its time: pairs (seconds, bytes).
        library_audio_per_second: Audio seconds per second of ``Model.transcribe_many`` with the same clips and as many at
            a time; None when it was not measured.
        library_seconds: With one client: how long ``Model.transcribe`` took after each request, for the same clip.
        interrupted: Whether Ctrl-C ended it.
    """

    settings: dict[str, Any]
    seconds: float = 0.0
    answers: list[Answer] = field(default_factory=list)
    memory: list[tuple[float, float]] = field(default_factory=list)
    library_audio_per_second: float | None = None
    library_seconds: list[float] = field(default_factory=list)
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
            "library": _percentiles(self.library_seconds),
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
    language: str | None = None,
    plain: bool = False,
    library: Library | None = None,
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
        language: Language to ask for; None lets the server detect it.
        plain: Whether answers come at once, not as streams of events.
        library: Puts the same clips through the library, too.
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
            "language": language,
            "plain": plain,
        }
    )
    form = {"stream": "false" if plain else "true", **({"language": language} if language else {})}
    stop, lock = threading.Event(), threading.Lock()
    numbers = itertools.count()
    failures: list[Qwen3AsrError] = []
    with contextlib.ExitStack() as stack:
        limits = httpx.Limits(max_connections=None)
        client = stack.enter_context(httpx.Client(base_url=url, headers=headers, timeout=600, limits=limits))
        beside: Callable[[str], None] | None = None
        if library is not None and concurrency == 1:
            beside = stack.enter_context(library.beside(report, language))
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
                answer = _ask(httpx, client, clips[number % len(clips)], form, begin)
                with lock:
                    report.answers.append(answer)
                    progress(clips[number % len(clips)][0], len(report.answers))
                if beside is not None:
                    try:
                        beside(files[number % len(files)])
                    except Qwen3AsrError as error:
                        failures.append(error)
                        return

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
        if failures:
            raise failures[0]
        if beside is not None:
            report.seconds = sum(answer.seconds for answer in report.answers)
        _note_memory(httpx, client, report, begin)
    if library is not None and concurrency > 1 and report.answers and not report.interrupted:
        library.afterwards(report)
    return report


class Library:
    """The same clips through the library, in this process.

    Args:
        model: The model that the server has.
        max_new_tokens: The server's limit of tokens, when it has one.
        settings: Further settings of ``Model``, as the server has them.
    """

    def __init__(
        self, model: str | os.PathLike[str] | None, *, max_new_tokens: int | None = None, **settings: Any
    ) -> None:
        self._model, self._settings = model, settings
        self._options: dict[str, Any] = {"max_new_tokens": max_new_tokens}

    @contextlib.contextmanager
    def beside(self, report: Report, language: str | None) -> Iterator[Callable[[str], None]]:
        """For one client: a call for each request, after it, that puts its clip through the library and notes the time.

        Requests and calls in turn: what else the machine does meets both alike.
        """
        from ..model import Model

        with Model(self._model, **self._settings) as model:

            def call(file: str) -> None:
                begin = time.monotonic()
                model.transcribe(file, language, **self._options)
                report.library_seconds.append(time.monotonic() - begin)

            yield call

    def afterwards(self, report: Report) -> None:
        """Puts the clips of a report through ``Model.transcribe_many``, as often and as many at a time as clients asked."""
        from ..model import Model

        asked = report.settings
        audios = list(itertools.islice(itertools.cycle(asked["files"]), len(report.answers)))
        with Model(self._model, batch=asked["concurrency"], **self._settings) as model:
            model.transcribe(audios[0], asked["language"], **self._options)  # the server was warm, too
            begin = time.monotonic()
            total = 0.0
            for result in model.transcribe_many(audios, language=asked["language"], **self._options):
                if isinstance(result, Qwen3AsrError):
                    raise result
                total += result.timings.audio_ms / 1000
            report.library_audio_per_second = total / (time.monotonic() - begin)


def _ask(
    httpx: Any, client: Any, clip: tuple[str, bytes, float], form: dict[str, str], origin: float
) -> Answer:
    name, content, audio_seconds = clip
    begin = time.monotonic()
    first, error = None, "the stream ended without its text"
    try:
        with client.stream("POST", PATH, files={"file": (name, content)}, data=form) as response:
            if response.status_code != 200:
                error = f"status {response.status_code}"
            elif form["stream"] == "false":
                error = "" if "text" in json.loads(response.read()) else error
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
