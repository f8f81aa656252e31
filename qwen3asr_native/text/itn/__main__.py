"""``python -m qwen3asr_native.text.itn``: normalizes standard input line by line."""

from __future__ import annotations

import sys
from typing import TextIO

from . import normalize


def run_filter(lines: TextIO, out: TextIO) -> None:
    """Write each line of ``lines`` to ``out``, normalized, as soon as it has come."""
    for line in iter(lines.readline, ""):
        out.write(normalize(line))
        out.flush()


def main() -> int:
    """Run the filter on standard input and output, both UTF-8."""
    for stream in (sys.stdin, sys.stdout):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure:
            reconfigure(encoding="utf-8", errors="surrogateescape", newline="")
    try:
        run_filter(sys.stdin, sys.stdout)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader is gone; nothing more can be flushed at exit.
        sys.stderr.close()
        return 0
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
