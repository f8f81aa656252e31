"""The engine from Python: sessions over the C object, and turns of the callers on it.

One run at a time: a second thread waits for its turn. Nothing here holds the GIL while the engine works, and nothing calls
Python from the engine's threads.
"""

from __future__ import annotations

import functools
import json
import os
import tempfile
import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ._native import ffi, lib
from .errors import (
    ArgumentError,
    ForkedError,
    LanguageError,
    LibraryError,
    ModelBusyError,
    ModelClosedError,
    ModelFileError,
    OutOfMemoryError,
    error_of_status,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .audio import Pcm

ATTENTION = {"window": 0, "full": 1}

_BAD_MODEL = -3
_BUSY = -6
_FINISH = {1: "stop", 2: "length", 3: "abort", 4: "loop"}
# Ctrl-C is looked at between waits.
_WAIT_MS = 100


class Options(NamedTuple):
    """How to recognize. language: forced, None detects. max_new_tokens: None derives a limit from the audio's length."""

    language: str | None = None
    context: str = ""
    max_new_tokens: int | None = None
    attention: str = "window"
    ignore_stop: bool = False


class Event(NamedTuple):
    """A token, or a piece of text of a library that has no token events (then id and logprob are None)."""

    time_ns: int
    id: int | None
    logprob: float | None
    special: bool
    text: bytes


@dataclass(frozen=True)
class RunResult:
    """How a run ended. start_ns, end_ns: CLOCK_MONOTONIC; measured: the engine's timings, if it has them."""

    start_ns: int
    end_ns: int
    finish: str | None
    measured: dict[str, float] | None


def engine_version() -> str:
    """Version of the engine that is compiled in."""
    return _text(lib.chatllm_asr_version())


def kernel_sets() -> list[str]:
    """Names of the kernel sets that this CPU can run, best first; the last is "generic"."""
    return _text(lib.chatllm_asr_kernel_sets()).split(",")


@dataclass(frozen=True)
class Machine:
    """What the machine can do. Per second, all threads together; a multiply and an add are two operations.

    Attributes:
        threads: Threads that measured.
        int8_ops: Dot products of bytes in vector registers.
        bf16_ops: bfloat16 products on the matrix unit where the kernel set uses one, else ``float_ops``.
        float_ops: float32 multiply-adds.
        read_bytes: Reading memory far larger than the caches.
    """

    threads: int
    int8_ops: float
    bf16_ops: float
    float_ops: float
    read_bytes: float


def measure_machine(kernels: str | None = None, threads: int | None = None) -> Machine:
    """Measures the limits that a run's times are held against; takes about a second and 256 MB.

    Args:
        kernels: A name of ``kernel_sets``, whose widest instructions are measured; None takes the best.
        threads: None takes the processors that the process may use.

    Raises:
        ArgumentError: There is no such kernel set.
        OutOfMemoryError: Memory or threads are short.
    """
    machine = ffi.new("chatllm_asr_machine *", {"size": ffi.sizeof("chatllm_asr_machine")})
    name = ffi.NULL if kernels is None else ffi.new("char[]", kernels.encode())
    status = lib.chatllm_asr_measure_machine(name, threads or 0, machine)
    if status != 0:
        raise error_of_status(status, _text(lib.chatllm_asr_last_error(ffi.NULL)))
    return Machine(machine.threads, machine.int8_ops, machine.bf16_ops, machine.float_ops, machine.read_bytes)


def inspect_model(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Describes a model file from its header, without loading it.

    Raises:
        ModelFileError: It is missing or not a model.
    """
    description: dict[str, Any] = json.loads(_text(lib.chatllm_inspect_model(os.fsencode(path))))
    if "error" in description:
        raise ModelFileError(f"'{os.fspath(path)}' cannot be used as a model: {description['error']}")
    return description


def _text(pointer: Any) -> str:
    return "" if pointer == ffi.NULL else ffi.string(pointer).decode("utf-8", "replace")


def _end_object(handle: Any, pid: int) -> None:
    """Stops what runs and frees the engine's object; in a forked child, where the threads are gone, it is abandoned."""
    if os.getpid() != pid:
        return
    lib.q3a_abort(handle)
    while lib.q3a_destroy_object(handle) == _BUSY:
        lib.q3a_abort(handle)
        lib.q3a_wait_end(handle, _WAIT_MS)


class Session:
    """One started object of the C API and the events of its last run.

    The events live as long as the session, so a reader may go on after ``close``.
    """

    def __init__(self, api: Any, words: Sequence[str]) -> None:
        handle = lib.q3a_new(api)
        if handle == ffi.NULL:
            raise OutOfMemoryError("no memory for a session of the engine")
        self.api = api
        self.handle = ffi.gc(handle, lib.q3a_free)
        self.info: dict[str, Any] = {}
        self._event = ffi.new("q3a_event *")
        self._alive: tuple[Any, ...] = ()  # what the current run reads
        self.start_ns = 0  # CLOCK_MONOTONIC when the engine got the audio
        self._errors: list[str] = []
        self.close = weakref.finalize(self, _end_object, self.handle, os.getpid())
        for word in words:
            api.append_param(self.object, os.fsencode(word))
        status = lib.q3a_start(self.handle)
        while self.next() is not None:
            pass
        if status != 0:
            message = self._message(self._last_error())
            self.close()
            raise error_of_status(status if api.asr_last_error else _BAD_MODEL, message)
        if api.asr_model_info:
            self.info = json.loads(_text(api.asr_model_info(self.object)))

    @property
    def object(self) -> Any:
        return lib.q3a_object(self.handle)

    @property
    def has_pcm(self) -> bool:
        """Whether the library has our additions to the API; else audio goes through a file."""
        return bool(self.api.asr_run)

    def run_pcm(self, pcm: Pcm, options: Options) -> None:
        c_options, texts = _c_options(options)
        samples = ffi.from_buffer("float[]", np.ascontiguousarray(pcm, dtype=np.float32))
        self._alive = (samples, c_options, texts)
        self._begun(lib.q3a_run_pcm(self.handle, samples, len(samples), c_options))

    def run_file(self, path: str, options: Options) -> None:
        limit = -1 if options.max_new_tokens is None else options.max_new_tokens
        tag = f"{{{{audio:{path}}}}}".encode()
        self._begun(lib.q3a_run_text(self.handle, tag, options.context.encode(), limit))

    def _begun(self, status: int) -> None:
        self._errors = []
        if status != 0:
            raise error_of_status(status, "the engine cannot begin a run now")

    def next(self) -> Event | RunResult | None:
        """The next event, or the end of the run; None when nothing has come for 100 ms."""
        event = self._event
        while True:
            kind = lib.q3a_next(self.handle, event, _WAIT_MS)
            if kind == lib.Q3A_NONE:
                return None
            text: bytes = ffi.buffer(event.text, event.text_len)[:] if event.text_len else b""
            if kind == lib.Q3A_TOKEN:
                return Event(event.time_ns, event.id, event.logprob, bool(event.special), text)
            if kind == lib.Q3A_CHUNK:
                return Event(event.time_ns, None, None, False, text)
            if kind == lib.Q3A_END:
                return self._ended(event.id, event.time_ns, text)
            if kind == lib.Q3A_BEGIN:
                self.start_ns = event.time_ns
            elif event.id == lib.PRINTLN_ERROR:
                self._errors.append(text.decode("utf-8", "replace"))
            elif event.id == lib.PRINTLN_MODEL_INFO:
                self._read_info(text)

    def _ended(self, status: int, end_ns: int, message: bytes) -> RunResult:
        self._alive = ()
        if status != 0 or (self._errors and not self.has_pcm):
            raise error_of_status(status, self._message(message.decode("utf-8", "replace")))
        if not self.has_pcm:
            return RunResult(self.start_ns, end_ns, None, None)
        timings = lib.q3a_timings(self.handle)
        measured = {name: getattr(timings, name) for name, _ in ffi.typeof("chatllm_asr_timings").fields}
        return RunResult(timings.start_ns, end_ns, _FINISH.get(timings.finish), measured)

    def _message(self, message: str) -> str:
        return message or "; ".join(self._errors)

    def _last_error(self) -> str:
        return _text(self.api.asr_last_error(self.object)) if self.api.asr_last_error else ""

    def _read_info(self, line: bytes) -> None:
        try:
            info = json.loads(line)
        except ValueError:
            return  # a foreign library may write what it likes
        self.info = info if isinstance(info, dict) else {}

    def matrix(self, name: str, pcm: Pcm, *arguments: Any) -> NDArray[np.float32]:
        """Calls ``chatllm_asr_<name>`` on samples [n]; float32 [rows, columns]."""
        samples = ffi.from_buffer("float[]", np.ascontiguousarray(pcm, dtype=np.float32))
        data, shape = ffi.new("float **"), ffi.new("int64_t[2]")
        status = getattr(self.api, f"asr_{name}")(self.object, samples, len(samples), *arguments, data, shape)
        if status != 0:
            raise error_of_status(status, self._last_error())
        try:
            content = ffi.buffer(data[0], shape[0] * shape[1] * 4)
            rows, columns = int(shape[0]), int(shape[1])
            return np.array(np.frombuffer(content, np.float32).reshape(rows, columns))
        finally:
            self.api.asr_free(data[0])

    def prefill_logits(self, pcm: Pcm, options: Options) -> NDArray[np.float32]:
        c_options, texts = _c_options(options)
        logits: NDArray[np.float32] = self.matrix("prefill_logits", pcm, c_options)[0]
        del texts  # until here the structure points into them
        return logits

    def prompt_ids(self, n_samples: int, options: Options) -> list[int]:
        c_options, texts = _c_options(options)
        count = self.api.asr_prompt_ids(self.object, n_samples, c_options, ffi.NULL, 0)
        if count >= 0:
            ids = ffi.new("int32_t[]", max(1, count))
            count = self.api.asr_prompt_ids(self.object, n_samples, c_options, ids, count)
        del texts
        if count < 0:
            raise error_of_status(count, self._last_error())
        return list(ids[0:count])


def _c_options(options: Options) -> tuple[Any, tuple[Any, ...]]:
    """The C structure, and the strings that must outlive it."""
    language = ffi.new("char[]", options.language.encode()) if options.language else ffi.NULL
    context = ffi.new("char[]", options.context.encode())
    c_options = ffi.new("chatllm_asr_options *")
    c_options.size = ffi.sizeof("chatllm_asr_options")
    c_options.max_new_tokens = -1 if options.max_new_tokens is None else options.max_new_tokens
    c_options.attention = ATTENTION[options.attention]
    c_options.ignore_stop = options.ignore_stop
    c_options.language, c_options.context = language, context
    return c_options, (language, context)


class Engine:
    """A model in an engine: loads, runs one call at a time, closes, loads again."""

    def __init__(
        self,
        model: Path,
        *,
        threads: int | None = None,
        kernels: str | None = None,
        library: str | os.PathLike[str] | None = None,
        context_length: int | None = None,
        plain_library: bool = False,
    ) -> None:
        self._api = lib.q3a_embedded() if library is None else _open_library(library, plain_library)
        self._words = _start_words(model, threads, kernels, context_length, plain=not self._api.asr_run)
        self._turn = threading.Lock()
        # Reentrant: the garbage collector may end a call in a thread that holds it.
        self._state = threading.RLock()
        self._call: Call | None = None
        self._pid = os.getpid()
        self._language: str | None = None  # what a library without PCM input was started with
        self._session: Session | None = self._load()

    def _load(self) -> Session:
        language = [] if self._language is None else ["--set", "language", self._language]
        return Session(self._api, [*self._words, *language])

    @property
    def closed(self) -> bool:
        return self._session is None

    @property
    def session(self) -> Session:
        """The open session. Raises ModelClosedError, ForkedError."""
        session = self._session
        if session is None:
            raise ModelClosedError("the model is closed; open it again with reinit() or make a new Model")
        if os.getpid() != self._pid:
            raise ForkedError(
                "the process was forked after the model was loaded; load the model in the child, or start "
                "processes with the 'spawn' method"
            )
        return session

    def check_language(self, language: str | None) -> str | None:
        """The model's spelling of a language; None for automatic. Raises LanguageError."""
        session = self.session
        wanted = (language or "").strip()
        if wanted.lower() in ("", "auto"):
            return None
        known = [str(name) for name in session.info.get("languages") or ()]
        for name in known:
            if name.lower() == wanted.lower():
                return name
        if known:
            raise LanguageError(
                f"the model does not know the language '{wanted}'; it knows {', '.join(known)}"
            )
        return wanted[:1].upper() + wanted[1:].lower()

    def begin(self) -> Call:
        """Waits for the turn of the calling thread."""
        call = Call(self)
        self._take_turn()
        self._call = call
        return call

    def _take_turn(self) -> None:
        self.session  # noqa: B018 - a lock that a fork has copied would never be free
        call = self._call
        if call is not None and call.owner == threading.get_ident():
            raise ModelBusyError(
                "this thread has an unfinished stream on the model; read it to its end or close it first"
            )
        self._turn.acquire()
        if self._session is None:
            self._turn.release()
            raise ModelClosedError("the model was closed while this call waited for its turn")

    @contextmanager
    def current(self, call: Call) -> Iterator[bool]:
        """Whether it is the turn of a call, and stays so inside the block. Never in a forked child."""
        if os.getpid() != self._pid:
            yield False
            return
        with self._state:
            yield self._call is call

    def end(self, call: Call) -> None:
        """Gives the turn of a call back; once."""
        with self.current(call) as current:
            if current:
                self._call = None
                self._turn.release()

    @contextmanager
    def turn(self) -> Iterator[Session]:
        """The session for a call that needs no events."""
        self._take_turn()
        try:
            yield self.session
        finally:
            self._turn.release()

    def session_for(self, language: str | None) -> Session:
        """The session for a run, within a turn. A library without PCM input is told the language at its start only."""
        session = self.session
        if not session.has_pcm and language != self._language:
            session.close()
            self._language = language
            session = self._session = self._load()
        return session

    def abort(self) -> None:
        """Stops the current call, if there is one; from any thread."""
        call = self._call
        if call is not None:
            call.abort()

    def close(self) -> None:
        """Stops what runs and frees everything. Harmless when closed."""
        with self._state:
            session, self._session = self._session, None
            call = self._call
        if session is None or os.getpid() != self._pid:
            return
        if call is not None:
            call.abort()
            call.close()
        with self._turn:
            session.close()

    def reinit(self) -> None:
        """Closes and loads again."""
        self.close()
        with self._state:
            if self._session is None:
                if os.getpid() != self._pid:  # a forked child begins anew
                    self._turn, self._call, self._pid = threading.Lock(), None, os.getpid()
                self._session = self._load()


class Call:
    """One caller's turn on the engine: runs in order, their events, and an end that cannot be missed."""

    def __init__(self, engine: Engine) -> None:
        self.owner = threading.get_ident()
        self.aborted = False
        self._engine = engine
        self._session: Session | None = None
        self._file: str | None = None

    @property
    def start_ns(self) -> int:
        """CLOCK_MONOTONIC when the engine got the audio of the current run."""
        assert self._session is not None
        return self._session.start_ns

    def run(self, pcm: Pcm, options: Options) -> None:
        """Begins to recognize samples [n]; the events come from ``next``."""
        with self._engine.current(self) as current:
            if not current:
                raise ModelClosedError("the model was closed before this call could use it")
            session = self._session = self._engine.session_for(options.language)
            if session.has_pcm:
                session.run_pcm(pcm, options)
                return
            if options.attention != "window" or options.ignore_stop:
                raise LibraryError(
                    "the library has only chatllm.cpp's own API, which has no option for attention or stops"
                )
            self._file = _wave_file(pcm)
            session.run_file(self._file, options)

    def next(self) -> Event | RunResult:
        """Waits for the next event of the run, or its result. Raises what made the run fail."""
        assert self._session is not None
        event = self._session.next()
        while event is None:
            if self.aborted:  # again: the first time may have come before the engine had begun
                lib.q3a_abort(self._session.handle)
            event = self._session.next()
        if isinstance(event, RunResult):
            self._remove_file()
        return event

    def abort(self) -> None:
        """Asks the run to stop; from any thread. Does nothing to a later call's run."""
        self.aborted = True
        with self._engine.current(self) as current:
            if current and self._session is not None:
                lib.q3a_abort(self._session.handle)

    def close(self) -> None:
        """Stops the run, waits for its end, and gives the turn back. Events already made stay readable."""
        while not self._ended():
            self.abort()
            lib.q3a_wait_end(self._session.handle, _WAIT_MS)  # type: ignore[union-attr]
        self._remove_file()

    def _ended(self) -> bool:
        """Gives the turn back unless a run is under way; in one step, so that none can begin in between."""
        with self._engine.current(self) as current:
            if current and self._session is not None and not lib.q3a_wait_end(self._session.handle, 0):
                return False
            self._engine.end(self)
            return True

    def _remove_file(self) -> None:
        path, self._file = self._file, None
        if path is not None:
            with suppress(FileNotFoundError):
                os.unlink(path)


def _start_words(
    model: Path, threads: int | None, kernels: str | None, context_length: int | None, plain: bool
) -> list[str]:
    words = ["-m", os.fspath(model)]
    for option, name, value in (("-n", "threads", threads), ("-c", "context_length", context_length)):
        if value is not None:
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ArgumentError(f"{name} must be a whole number of at least 1, not {value!r}")
            words += [option, str(value)]
    if kernels is not None:
        if plain:
            raise ArgumentError("the library has only chatllm.cpp's own API, which has no choice of kernels")
        words += ["--kernels", kernels]
    if plain:
        words += ["--multimedia_file_tags", "{{", "}}", "--hide_banner", "-t", "0"]
    return words


def _open_library(library: str | os.PathLike[str], plain: bool) -> Any:
    path = Path(library)
    if not path.is_file():
        raise LibraryError(f"the library '{path}' does not exist")
    return _library_functions(os.fsencode(path.resolve()), plain)


@functools.cache  # a library stays loaded for the life of the process, and so does its table
def _library_functions(path: bytes, plain: bool) -> Any:
    message = ffi.new("char[]", 1024)
    api = lib.q3a_open_library(path, plain, message, len(message))
    if api == ffi.NULL:
        raise LibraryError(
            f"'{os.fsdecode(path)}' cannot be used as a build of chatllm.cpp: {_text(message)}"
        )
    return api


def _wave_file(pcm: Pcm) -> str:
    """A temporary 16-bit WAV file, for libraries that read audio from files only."""
    import soundfile

    from .audio import SAMPLE_RATE

    descriptor, path = tempfile.mkstemp(prefix="qwen3asr-", suffix=".wav")
    os.close(descriptor)
    try:
        # Such a library may put the path into a shell's command line or end it at a closing tag.
        if any(sign in path for sign in "\"'`$\\{};&|<>\n") and os.name == "posix":
            raise LibraryError(
                f"the path of temporary files, '{path}', holds signs that the library may misread; set TMPDIR"
            )
        soundfile.write(path, pcm, SAMPLE_RATE, subtype="PCM_16")
    except BaseException:
        os.unlink(path)
        raise
    return path
