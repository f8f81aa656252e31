"""The command line ``qwen3asr``: text on standard output, everything else on standard error.

A command is a function of a module in this package, named in ``app.COMMANDS``; a module is imported when its command is
asked for, and imports what it computes with inside that function.
"""

from __future__ import annotations

from . import signals


def main() -> None:
    """Entry point of the program."""
    signals.leave_at_once()
    from .app import main as run

    run()
