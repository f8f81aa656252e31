"""What the commands write beside their result: sentences, tables, progress bars on a terminal."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

_PIPE_WIDTH = 200


def note(message: str) -> None:
    """A line on standard error."""
    print(message, file=sys.stderr, flush=True)


def report(error: BaseException) -> None:
    """An error as a line on standard error."""
    note(f"qwen3asr: {error}")


def print_line(text: str) -> None:
    """A line of the result."""
    print(text, flush=True)


def print_json(value: Any) -> None:
    """A value as one line of JSON."""
    print_line(json.dumps(value, ensure_ascii=False))


def discard_output() -> None:
    """After a failed write: what could not be written must not fail again at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def output() -> Console:
    """Standard output, for tables; as wide as they need in a pipe."""
    from rich.console import Console

    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=_PIPE_WIDTH)


def print_table(rows: dict[str, Any], error: bool = False) -> None:
    """Names and values, one a line, on standard output or on standard error."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows.items():
        shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        table.add_row(Text(name.replace("_", " ")), Text(shown))
    Console(stderr=error, highlight=False).print(table)


@contextmanager
def progress(total: int | None, *, bytes_of: str | None = None) -> Iterator[Callable[..., None]]:
    """A bar on standard error while the block runs; what it gives takes a title and the number of finished steps.

    Nothing at all is written to what is no terminal, or one that cannot move its cursor. With ``bytes_of``, the title,
    the steps are bytes, and the total is the third value of each call.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    shown = console.is_terminal and not console.is_dumb_terminal
    count = DownloadColumn() if bytes_of is not None else MofNCompleteColumn()
    columns = (TextColumn("{task.description}"), BarColumn(), count, TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not shown) as bars:
        task = bars.add_task(bytes_of or "", total=total)

        def step(title: str, done: int, of: int | None = None) -> None:
            bars.update(task, description=title, completed=done, total=total if of is None else of)

        yield step
