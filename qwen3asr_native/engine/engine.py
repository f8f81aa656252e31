"""A model in an engine: loads, recognizes any number of utterances at a time, closes, loads again."""

from __future__ import annotations

import os
import threading
import weakref
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from .._native import lib
from ..errors import ArgumentError, LibraryError, ModelClosedError
from ..languages import name_of, resolve
from .embedded import EmbeddedBackend
from .foreign import ForeignBackend, open_library
from .shim import Run, Session, forked_error

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from ..audio import Pcm
    from ..options import Options

Held = TypeVar("Held", bound="Holder")

#: Pieces of long audio, or audios of many, that are with the engine at a time: if nothing else is asked, and at most.
BATCH, MOST_BATCH = 8, 256


class Backend(Protocol):
    """What computes utterances."""

    session: Session
    has_additions: bool

    @property
    def info(self) -> dict[str, Any]: ...

    def submit(self, pcm: Pcm, options: Options) -> Run: ...

    def wait_any_end(self, known: int) -> int: ...

    def close(self) -> None: ...


class Engine:
    """A model, open or closed. Threads may share it."""

    def __init__(
        self,
        model: Path,
        *,
        threads: int | None = None,
        kernels: str | None = None,
        library: str | os.PathLike[str] | None = None,
        context_length: int | None = None,
        plain_library: bool = False,
        batch: int = BATCH,
    ) -> None:
        self._api = lib.q3a_embedded() if library is None else open_library(library, plain_library)
        plain = not self._api.asr_submit
        self.batch = 1 if plain else batch
        self._words = _start_words(model, threads, kernels, context_length, batch, plain)
        # Reentrant: the garbage collector may end a call in a thread that holds it.
        self._state = threading.RLock()
        self._calls: weakref.WeakSet[Call] = weakref.WeakSet()
        self._pid = os.getpid()
        # Calls without events are one at a time, and the object is not freed under them.
        self._turn = threading.Lock()
        self._backend: Backend | None = self._load()

    def _load(self) -> Backend:
        kind = EmbeddedBackend if self._api.asr_submit else ForeignBackend
        return kind(self._api, self._words)

    @property
    def closed(self) -> bool:
        return self._backend is None

    @property
    def backend(self) -> Backend:
        """The open engine. Raises ModelClosedError, ForkedError."""
        backend = self._backend
        if backend is None:
            raise ModelClosedError("the model is closed; open it again with reinit() or make a new Model")
        if os.getpid() != self._pid:
            raise forked_error()
        return backend

    @property
    def info(self) -> dict[str, Any]:
        """The model as the engine describes it. Raises ModelClosedError, ForkedError."""
        return self.backend.info

    def check_language(self, language: str | None) -> str | None:
        """The model's spelling of a language named or coded; None for automatic. Raises LanguageError."""
        wanted = (language or "").strip()
        if wanted.lower() in ("", "auto"):
            return None
        known = [str(name) for name in self.info.get("languages") or ()]
        if known:
            return resolve(wanted, known)
        name = name_of(wanted)
        return name[:1].upper() + name[1:]

    def call(self) -> Call:
        """A caller's utterances. Raises ModelClosedError, ForkedError."""
        self.backend  # noqa: B018 - raises
        call = Call(self)
        with self._state:
            self._calls.add(call)
        return call

    def require_additions(self) -> Backend:
        """The open engine, which has our additions to the API. Raises LibraryError, ModelClosedError, ForkedError."""
        backend = self.backend
        if not backend.has_additions:
            raise LibraryError(
                "the library has only chatllm.cpp's own API, which has neither intermediate results nor live speech"
            )
        return backend

    @contextmanager
    def turn(self) -> Iterator[Session]:
        """The session for a call that has no events. Raises LibraryError for a library without our additions."""
        self.backend  # noqa: B018 - a lock that a fork has copied would never be free
        with self._turn:
            yield self.require_additions().session

    def abort(self) -> None:
        """Stops every call that is under way; from any thread."""
        with self._state:
            calls = list(self._calls)
        for call in calls:
            call.abort()

    def close(self) -> None:
        """Stops what runs and frees everything. Harmless when closed."""
        if os.getpid() != self._pid:
            self._backend = None  # its threads are the parent's; its lock may be held for ever
            return
        with self._state:
            backend, self._backend = self._backend, None
        if backend is None:
            return
        self.abort()
        with self._turn:
            backend.close()

    def reinit(self) -> None:
        """Closes and loads again."""
        self.close()
        if os.getpid() != self._pid:  # a forked child begins anew
            self._state, self._turn, self._pid = threading.RLock(), threading.Lock(), os.getpid()
            self._calls = weakref.WeakSet()
        with self._state:
            if self._backend is None:
                self._backend = self._load()


class Holder:
    """What users hold of an engine. A class of its own sets ``_path`` and ``_engine``."""

    _path: Path
    _engine: Engine

    def __repr__(self) -> str:
        return f"{type(self).__name__}({os.fspath(self._path)!r}{', closed' if self.closed else ''})"

    def __enter__(self: Held) -> Held:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._engine.closed

    @property
    def info(self) -> dict[str, Any]:
        """The model as the engine describes it: sizes, languages, kernels, threads, tensor type, path."""
        return dict(self._engine.info)

    def close(self) -> None:
        """Stops what runs, frees everything and returns the memory to the system. Harmless when closed."""
        self._engine.close()


class Call:
    """One caller's utterances on an engine, which stop together."""

    def __init__(self, engine: Engine) -> None:
        self.aborted = False
        self._engine, self._pid = engine, os.getpid()
        self._lock = threading.RLock()  # reentrant, as the engine's
        self._runs: list[Run] = []  # that may be under way

    def submit(self, pcm: Pcm, options: Options) -> Run:
        """Begins to recognize samples [n]; the events come from the run. Raises ModelClosedError, ForkedError."""
        run = self._engine.backend.submit(pcm, options)
        with self._lock:
            self._runs = [other for other in self._runs if not other.wait_end(0)]
            self._runs.append(run)
        if self.aborted:
            run.cancel()
        return run

    def under_way(self) -> int:
        """Runs that have not ended."""
        with self._lock:
            self._runs = [run for run in self._runs if not run.wait_end(0)]
            return len(self._runs)

    def wait_any_end(self, known: int) -> int:
        """Waits a moment for the end of any run of the engine, see ``Session.wait_any_end``."""
        return self._engine.backend.wait_any_end(known)

    def abort(self) -> None:
        """Asks all runs to stop, and those to come; from any thread."""
        self.aborted = True
        if os.getpid() != self._pid:
            return  # the runs are the parent's; its lock may be held for ever
        with self._lock:
            runs = list(self._runs)
        for run in runs:
            run.cancel()


def _start_words(
    model: Path,
    threads: int | None,
    kernels: str | None,
    context_length: int | None,
    batch: int,
    plain: bool,
) -> list[str]:
    words = ["-m", os.fspath(model)]
    numbers = [("-n", threads), ("-c", context_length), ("--batch", None if plain else batch)]
    for option, value in numbers:
        if value is not None:
            words += [option, str(value)]
    if kernels is not None:
        if plain:
            raise ArgumentError("the library has only chatllm.cpp's own API, which has no choice of kernels")
        words += ["--kernels", kernels]
    return words
