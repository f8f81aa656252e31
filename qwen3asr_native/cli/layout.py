"""Tables and progress bars of the command line: bars on a terminal only, tables as wide as they need in a pipe."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

_PIPE_WIDTH = 200


def output() -> Console:
    """Standard output, for tables."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=_PIPE_WIDTH)


@contextmanager
def progress(total: int) -> Iterator[Callable[[str, int], None]]:
    """A bar on standard error while the block runs; what it gives takes a title and the number of finished steps.

    Nothing at all is written to what is no terminal, or one that cannot move its cursor.
    """
    console = Console(stderr=True)
    shown = console.is_terminal and not console.is_dumb_terminal
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not shown) as bars:
        task = bars.add_task("", total=total)

        def step(title: str, done: int) -> None:
            bars.update(task, description=title, completed=done)

        yield step
