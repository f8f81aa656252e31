"""The command ``qwen3asr itn``."""

from __future__ import annotations

import click

from . import epilog
from .command import command


@command(
    epilog=epilog.closing(
        "echo 零九零零零七三三三一 | qwen3asr itn    # 0900073331", "qwen3asr itn < talk.txt"
    )
)
def itn() -> None:
    """Write the spoken Chinese numbers of standard input as digits, line by line."""
    from ..text.itn.__main__ import main as run

    raise click.exceptions.Exit(run())
