"""``qwen3asr itn``, also as ``python -m qwen3asr_native.text.itn``: normalizes standard input line by line."""

from __future__ import annotations

import os
import sys
from typing import TextIO

from . import normalize

FAILED = 1
INTERRUPTED = 130


def run_filter(lines: TextIO, out: TextIO) -> None:
    """Write each line of ``lines`` to ``out``, normalized, as soon as it has come."""
    for line in iter(lines.readline, ""):
        out.write(_normalized(line))
        out.flush()


def _normalized(line: str) -> str:
    """A line that fails passes as it was: a fault in one must not lose those after it."""
    try:
        return normalize(line)
    except Exception as error:
        _say(f"a line is passed on as it was: {error!r}")
        return line


def main() -> int:
    """Run the filter on standard input and output: UTF-8; other bytes, and line ends, pass as they are."""
    if sys.stdin is None or sys.stdout is None:
        _say("standard input or standard output is closed")
        return FAILED
    for stream in (sys.stdin, sys.stdout):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure:
            reconfigure(encoding="utf-8", errors="surrogateescape", newline="")
    if sys.stdin.isatty():
        _say("reading from the terminal, line by line; Ctrl-D ends it")
    try:
        run_filter(sys.stdin, sys.stdout)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # the reader has what it wanted
        _discard_output()
        return FAILED
    except OSError as error:
        _say(os.strerror(error.errno) if error.errno else str(error))
        _discard_output()
        return FAILED
    return 0


def _say(message: str) -> None:
    print(f"qwen3asr itn: {message}", file=sys.stderr, flush=True)


def _discard_output() -> None:
    """What could not be written must not fail again at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    raise SystemExit(main())
