"""The work of a cluster in a process that can be ended, with all that Ray begins for it, at any moment."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import secrets
import signal
import subprocess
import threading
from pathlib import Path
from typing import Any

from .. import errors
from ..extras import needed
from ..interpreter import command
from .batch import Summary


class Driver:
    """One call of ``transcribe``. POSIX only."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._stopped = False

    def stop(self) -> None:
        """Ends the call; from any thread. What is done is kept."""
        with self._lock:
            self._stopped = True
            self._kill()

    def _kill(self) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):  # of macOS, for one that has ended
                os.killpg(self._process.pid, signal.SIGKILL)

    def run(self, output: Path, **arguments: Any) -> Summary | None:
        """As ``transcribe``, whose arguments it takes and whose errors it raises, but None when it was stopped."""
        with needed("cluster"):
            if importlib.util.find_spec("ray") is None:
                raise ModuleNotFoundError("No module named 'ray'", name="ray")
        token = secrets.token_hex(4)
        given = json.dumps({"output": str(output), "token": token, **arguments})
        reader, writer = os.pipe()
        with os.fdopen(reader, encoding="utf-8") as told:
            try:
                with self._lock:
                    if self._stopped:
                        return None
                    # Ray's processes stay in its group, and write to nothing that somebody waits for.
                    self._process = subprocess.Popen(
                        command("qwen3asr_native.cluster.driver", str(writer)),
                        stdin=subprocess.PIPE,
                        stdout=subprocess.DEVNULL,
                        pass_fds=[writer],
                        start_new_session=True,
                    )
            finally:
                os.close(writer)
            try:
                assert self._process.stdin is not None
                with contextlib.suppress(BrokenPipeError), self._process.stdin as stdin:
                    stdin.write(given.encode())
                answer = told.read()
                status = self._process.wait()
            finally:
                self._kill()
                self._process.wait()
                for part in output.glob(f".*.{token}"):  # which a worker was writing
                    part.unlink(missing_ok=True)
        if answer:
            return _result(json.loads(answer))
        if self._stopped:
            return None
        raise errors.Qwen3AsrError(
            f"the process that drives Ray ended with status {status}; run it again to go on"
        )


def _result(answer: dict[str, Any]) -> Summary:
    if "error" in answer:
        raise getattr(errors, answer["error"])(answer["message"])
    return Summary(**answer["summary"])
