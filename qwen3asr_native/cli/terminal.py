"""What the commands write beside their result: sentences, tables, progress bars on a terminal."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

from ..errors import ArgumentError
from ..log import logger

if TYPE_CHECKING:
    from rich.console import Console

_PIPE_WIDTH = 200


def prepare_streams() -> None:
    """UTF-8 in every locale. The place of a stream that was closed before the program began is taken by an empty file:
    the next file that is opened would get it, and notes would become lines of a transcript."""
    for number, stream in enumerate((sys.stdin, sys.stdout, sys.stderr)):
        if stream is None:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(
                encoding="utf-8", errors="replace" if stream is sys.stdin else "backslashreplace"
            )
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - for the life of the process


# What could move the cursor, colour the screen or turn the direction of writing: control characters, marks of direction,
# line separators; and the lone surrogates that stand for bytes of a name that are not UTF-8.
_UNSAFE = re.compile("[\0-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def safe(text: str) -> str:
    """A text that does nothing to a terminal: names and metadata come from strangers."""
    return _UNSAFE.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), text)


def note(message: str) -> None:
    """A line on standard error."""
    print(safe(message), file=sys.stderr, flush=True)


class _Notes(logging.Handler):
    """What the library logs, as lines on standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        note(f"qwen3asr: {record.getMessage()}")


def print_log() -> None:
    """From now on what the library logs is printed on standard error."""
    logger.addHandler(_Notes())
    logger.propagate = False


def report(error: BaseException) -> None:
    """An error as a line on standard error."""
    note(f"qwen3asr: {error}")


def standard_output() -> TextIO:
    """Raises ArgumentError when it is closed: a result must not vanish."""
    if sys.stdout is None:
        raise ArgumentError("standard output is closed; the result has no place to go")
    return sys.stdout


def print_line(text: str) -> None:
    """A line of the result."""
    print_text(text + "\n")


def print_text(text: str) -> None:
    """A part of the result. Text is what a model says: on a terminal, it writes and does nothing else."""
    if standard_output().isatty():
        text = "".join(part if part in ("\n", "\t") else safe(part) for part in re.split("([\n\t])", text))
    print(text, end="", flush=True)


def print_json(value: Any) -> None:
    """A value as one line of JSON, without what is unsafe; bytes of names that are not UTF-8 become U+FFFD."""
    text = json.dumps(value, ensure_ascii=False)
    print_line(_UNSAFE.sub(lambda match: _json_escape(match[0]), text))


def _json_escape(character: str) -> str:
    return "\ufffd" if "\ud800" <= character <= "\udfff" else f"\\u{ord(character):04x}"


def discard_output() -> None:
    """After a failed write: what could not be written must not fail again at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def output() -> Console:
    """Standard output, for tables; as wide as they need in a pipe."""
    from rich.console import Console

    standard_output()
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
        table.add_row(Text(safe(name.replace("_", " "))), Text(safe(shown)))
    (Console(stderr=True, highlight=False) if error else output()).print(table)


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
