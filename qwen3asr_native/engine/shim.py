"""The shim from Python: a session on a C object, its runs, their events.

Nothing here holds the GIL while the engine works, and nothing calls Python from the engine's threads.
"""

from __future__ import annotations

import json
import os
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .._native import ffi, lib
from ..errors import ForkedError, OutOfMemoryError, error_of_status

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..audio import Pcm
    from ..options import Options

_BAD_MODEL = -3
_BUSY = -6
_FORKED = -9
_FINISH = {1: "stop", 2: "length", 3: "abort", 4: "loop"}
#: Ctrl-C is looked at between waits of so many milliseconds.
WAIT_MS = 100


class Event(NamedTuple):
    """A token, or a piece of text of a library that has no token events (then id and logprob are None)."""

    time_ns: int
    id: int | None
    logprob: float | None
    special: bool
    text: bytes


@dataclass(frozen=True)
class Step:
    """Live speech: the hypothesis of all audio so far is whole; the next token begins a new one."""

    time_ns: int
    measured: dict[str, float]


@dataclass(frozen=True)
class RunResult:
    """How a run ended. start_ns, end_ns: CLOCK_MONOTONIC; measured: the engine's timings, if it has them."""

    start_ns: int
    end_ns: int
    finish: str | None
    measured: dict[str, float] | None


def text_of(pointer: Any) -> str:
    """The text of a ``char *``; "" for NULL."""
    return "" if pointer == ffi.NULL else ffi.string(pointer).decode("utf-8", "replace")


def forked_error() -> ForkedError:
    return ForkedError(
        "the process was forked after the model was loaded; load the model in the child, or start processes with the "
        "'spawn' method"
    )


def _destroy(handle: Any) -> None:
    """Frees the engine's object; in a forked child, where its threads are gone, it is abandoned."""
    while lib.q3a_destroy_object(handle) == _BUSY:
        pass  # somebody's call without events, which takes milliseconds


class Session:
    """One started object of the C API. Any number of runs may be under way on it.

    The events of a run live as long as the run, so a reader may go on after ``close``.
    """

    def __init__(self, api: Any, words: Sequence[str]) -> None:
        handle = lib.q3a_new(api)
        if handle == ffi.NULL:
            raise OutOfMemoryError("no memory for a session of the engine")
        self.api = api
        self.handle = ffi.gc(handle, lib.q3a_free)
        self.info: dict[str, Any] = {}
        self.close = weakref.finalize(self, _destroy, self.handle)
        # While the interpreter ends, threads may still be at work. The engine's objects need no end: nothing that its
        # threads use is ever destroyed. Of another library we know nothing.
        self.close.atexit = api != lib.q3a_embedded()
        for word in words:
            api.append_param(self.object, os.fsencode(word))
        status = lib.q3a_start(self.handle)
        errors = self._read_lines()
        if status != 0:
            message = text_of(api.asr_last_error(self.object)) if api.asr_last_error else ""
            self.close()
            raise error_of_status(status if api.asr_last_error else _BAD_MODEL, message or "; ".join(errors))
        if api.asr_model_info:
            self.info = json.loads(text_of(api.asr_model_info(self.object)))

    def _read_lines(self) -> list[str]:
        """Takes what the start has printed; returns the errors."""
        errors, event = [], ffi.new("q3a_event *")
        while lib.q3a_next_line(self.handle, event) != lib.Q3A_NONE:
            text = ffi.buffer(event.text, event.text_len)[:].decode("utf-8", "replace")
            if event.id == lib.PRINTLN_ERROR:
                errors.append(text)
            elif event.id == lib.PRINTLN_MODEL_INFO:
                self.info = _object(text)
        return errors

    @property
    def object(self) -> Any:
        return lib.q3a_object(self.handle)

    def wait_any_end(self, known: int) -> int:
        """Waits, at most ``WAIT_MS``, until the number of runs that have ended is not ``known``; returns it."""
        return int(lib.q3a_wait_any_end(self.handle, known, WAIT_MS))

    def matrix(self, name: str, pcm: Pcm, *arguments: Any) -> NDArray[np.float32]:
        """Calls ``chatllm_asr_<name>`` on samples [n]; float32 [rows, columns]."""
        return self.matrix_of(getattr(self.api, f"asr_{name}"), pcm, *arguments)

    def matrix_of(self, function: Any, pcm: Pcm, *arguments: Any) -> NDArray[np.float32]:
        """Calls a function of the C API on samples [n]; float32 [rows, columns]."""
        samples = samples_of(pcm)
        data, shape = ffi.new("float **"), ffi.new("int64_t[2]")
        self.check(function(self.object, samples, len(samples), *arguments, data, shape))
        try:
            content = ffi.buffer(data[0], shape[0] * shape[1] * 4)
            rows, columns = int(shape[0]), int(shape[1])
            return np.array(np.frombuffer(content, np.float32).reshape(rows, columns))
        finally:
            self.api.asr_free(data[0])

    def prefill_logits(self, pcm: Pcm, options: Options) -> NDArray[np.float32]:
        c_options, texts = options.to_c()
        logits: NDArray[np.float32] = self.matrix("prefill_logits", pcm, c_options)[0]
        del texts  # until here the structure points into them
        return logits

    def prompt_ids(self, n_samples: int, options: Options) -> list[int]:
        c_options, texts = options.to_c()
        count = self.api.asr_prompt_ids(self.object, n_samples, c_options, ffi.NULL, 0)
        if count >= 0:
            ids = ffi.new("int32_t[]", max(1, count))
            count = self.api.asr_prompt_ids(self.object, n_samples, c_options, ids, count)
        del texts
        self.check(min(count, 0))
        return list(ids[0:count])

    def check(self, status: int) -> None:
        """Raises the error of a call on the object that has failed."""
        if status != 0:
            raise error_of_status(status, text_of(self.api.asr_last_error(self.object)))


class Run:
    """One utterance on a session, and its events.

    The end is not consumed: asked again, ``next`` gives it again, so nothing that interrupts a reader can lose it.
    """

    def __init__(self, session: Session) -> None:
        handle = lib.q3a_new_run(session.handle)
        if handle == ffi.NULL:
            raise OutOfMemoryError("no memory for a run of the engine")
        self.handle = ffi.gc(handle, lib.q3a_free_run)
        self.start_ns = 0  # CLOCK_MONOTONIC when the engine got the audio
        self._session = session
        self._event = ffi.new("q3a_event *")
        self._errors: list[str] = []

    def submit(self, pcm: Pcm, options: Options) -> None:
        """Hands samples [n] to an engine with our additions, which copies them."""
        c_options, texts = options.to_c()
        samples = samples_of(pcm)
        lib.q3a_submit(self.handle, samples, len(samples), c_options)
        del texts

    def submit_text(self, text: str, context: str, max_new_tokens: int | None) -> None:
        """Hands a text with a file tag to a library with upstream's API only."""
        limit = -1 if max_new_tokens is None else max_new_tokens
        lib.q3a_submit_text(self.handle, text.encode(), context.encode(), limit)

    def feed(self, pcm: Pcm, last: bool = False) -> None:
        """Gives more audio to a run with the option ``live``."""
        samples = samples_of(pcm)
        status = lib.q3a_feed(self.handle, samples, len(samples), last)
        if status != 0:
            raise error_of_status(status, "the engine takes no more audio for this run")

    def next(self) -> Event | Step | RunResult | None:
        """The next event, or the end of the run; None when nothing has come for ``WAIT_MS``.

        Raises what made the run fail; ForkedError.
        """
        event = self._event
        while True:
            kind = lib.q3a_next(self.handle, event, WAIT_MS)
            if kind == lib.Q3A_NONE:
                return None
            if kind == _FORKED:
                raise forked_error()
            text: bytes = ffi.buffer(event.text, event.text_len)[:] if event.text_len else b""
            if kind == lib.Q3A_TOKEN:
                return Event(event.time_ns, event.id, event.logprob, bool(event.special), text)
            if kind == lib.Q3A_CHUNK:
                return Event(event.time_ns, None, None, False, text)
            if kind == lib.Q3A_STEP:
                return Step(event.time_ns, self._timings())
            if kind == lib.Q3A_END:
                return self._ended(event.id, event.time_ns, text.decode("utf-8", "replace"))
            if kind == lib.Q3A_BEGIN:
                self.start_ns = event.time_ns
            elif event.id == lib.PRINTLN_ERROR:
                self._errors.append(text.decode("utf-8", "replace"))

    def _ended(self, status: int, end_ns: int, message: str) -> RunResult:
        measures = bool(self._session.api.asr_submit)
        if status != 0 or (self._errors and not measures):
            raise error_of_status(status, message or "; ".join(self._errors))
        if not measures:
            return RunResult(self.start_ns, end_ns, None, None)
        measured = self._timings()
        return RunResult(int(measured["start_ns"]), end_ns, _FINISH.get(int(measured["finish"])), measured)

    def _timings(self) -> dict[str, float]:
        timings = ffi.new("chatllm_asr_timings *")
        lib.q3a_timings(self.handle, timings)
        return {name: getattr(timings, name) for name, _ in ffi.typeof("chatllm_asr_timings").fields}

    def cancel(self) -> None:
        """Stops the run within one decode step; from any thread, at any time."""
        lib.q3a_cancel(self.handle)

    def wait_end(self, timeout_ms: int = WAIT_MS) -> bool:
        """Waits for the end without taking events; whether it has come."""
        return bool(lib.q3a_wait_end(self.handle, timeout_ms))


def samples_of(pcm: Pcm) -> Any:
    """Samples as the C API takes them."""
    return ffi.from_buffer("float[]", np.ascontiguousarray(pcm, dtype=np.float32))


def _object(line: str) -> dict[str, Any]:
    """A JSON object; empty for anything else, because a foreign library may write what it likes."""
    try:
        value = json.loads(line)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
