"""Another build of chatllm.cpp's C API as the engine, with upstream's functions only, and its oddities.

It computes one utterance at a time, reads audio from files, is told the language when it starts, and prints what other
engines return.
"""

from __future__ import annotations

import functools
import os
import sys
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._native import ffi, lib
from ..errors import LibraryError
from .shim import WAIT_MS, Run, Session, text_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..audio import Pcm
    from ..options import Options

#: Words for chatllm_append_param that upstream's library needs for speech.
START_WORDS = ("--multimedia_file_tags", "{{", "}}", "--hide_banner", "-t", "0")


def open_library(library: str | os.PathLike[str], plain: bool) -> Any:
    """The functions of a library. plain: upstream's only, even where it has ours. Raises LibraryError."""
    try:
        path = Path(library)
        if not path.is_file():
            raise LibraryError(f"the library '{path}' does not exist")
        return _functions(os.fsencode(path.resolve()), plain)
    except (OSError, TypeError, ValueError) as error:  # too long, no path at all, holding a zero
        raise LibraryError(f"{library!r} cannot be used as the path of a library: {error}") from None


@functools.cache  # a library stays loaded for the life of the process, and so does its table
def _functions(path: bytes, plain: bool) -> Any:
    message = ffi.new("char[]", 1024)
    api = lib.q3a_open_library(path, plain, message, len(message))
    if api == ffi.NULL:
        raise LibraryError(
            f"'{os.fsdecode(path)}' cannot be used as a build of chatllm.cpp: {text_of(message)}"
        )
    return api


class ForeignBackend:
    """Utterances on a library with upstream's API: one after the other, each through a file."""

    has_additions = False

    def __init__(self, api: Any, words: Sequence[str]) -> None:
        self._api, self._words = api, [*words, *START_WORDS]
        self._lock = threading.Lock()
        self._language: str | None = None  # what the session was started with
        self._files: list[tuple[Run, _WaveFile]] = []
        self.session = self._load(None)

    @property
    def info(self) -> dict[str, Any]:
        return self.session.info

    def _load(self, language: str | None) -> Session:
        words = [] if language is None else ["--set", "language", language]
        return Session(self._api, [*self._words, *words])

    def submit(self, pcm: Pcm, options: Options) -> Run:
        """Begins to recognize samples [n], after the runs before it."""
        if options.attention != "window" or options.ignore_stop or options.live:
            raise LibraryError(
                "the library has only chatllm.cpp's own API, which has no option for attention, stops or live speech"
            )
        with self._lock:
            self._drop_files()
            if options.language != self._language:
                self._restart(options.language)
            file = _WaveFile(pcm)
            run = Run(self.session)
            self._files.append((run, file))
            run.submit_text(f"{{{{audio:{file.path}}}}}", options.context, options.max_new_tokens)
            return run

    def _restart(self, language: str | None) -> None:
        """A library is told the language at its start only: it starts anew when its runs have ended."""
        for run, _ in self._files:
            while not run.wait_end(WAIT_MS):
                pass
        self._drop_files()
        session = self._load(language)
        self.session.close()
        self.session, self._language = session, language

    def _drop_files(self) -> None:
        """Removes the audio of runs that have ended."""
        going_on = []
        for run, file in self._files:
            if run.wait_end(0):
                file.remove()
            else:
                going_on.append((run, file))
        self._files = going_on

    def wait_any_end(self, known: int) -> int:
        ended = self.session.wait_any_end(known)
        if self._lock.acquire(blocking=False):
            try:
                self._drop_files()
            finally:
                self._lock.release()
        return ended

    def close(self) -> None:
        """Cancels every run and frees the object."""
        self.session.close()
        with self._lock:
            self._drop_files()


class _WaveFile:
    """16-bit WAV audio under a path, for a library that reads files only.

    On Linux the file has no name on any disk, so that nothing is left when the process is killed.
    """

    def __init__(self, pcm: Pcm) -> None:
        import soundfile

        from ..audio import SAMPLE_RATE

        self._process = os.getpid()
        if sys.platform == "linux":
            self._descriptor = os.memfd_create("qwen3asr.wav", os.MFD_CLOEXEC)
            self.path = f"/proc/{self._process}/fd/{self._descriptor}"
        else:
            self._descriptor, self.path = tempfile.mkstemp(prefix="qwen3asr-", suffix=".wav")
        self._removed = False
        try:
            # Such a library may put the path into a shell's command line or end it at a closing tag.
            if any(sign in self.path for sign in "\"'`$\\{};&|<>\n") and os.name == "posix":
                raise LibraryError(
                    f"the path of temporary files, '{self.path}', holds signs that the library may misread; set TMPDIR"
                )
            soundfile.write(self._descriptor, pcm, SAMPLE_RATE, subtype="PCM_16", format="WAV", closefd=False)
        except BaseException:
            self.remove()
            raise

    def remove(self) -> None:
        """Removes it, once; in a forked child it is the parent's."""
        if self._removed or os.getpid() != self._process:
            return
        self._removed = True
        os.close(self._descriptor)
        if sys.platform != "linux":
            with suppress(FileNotFoundError):
                os.unlink(self.path)
