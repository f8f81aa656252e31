"""Commands whose help explains their arguments too, and the options that several of them take."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

Function = TypeVar("Function", bound=Callable[..., Any])

SETTINGS: dict[str, Any] = {
    "help_option_names": ["-h", "--help"],
    "max_content_width": 110,
    "show_default": True,
}


# click 8.5 explains arguments itself; older ones, which Python 3.9 has, do not take the text.
_CLICK_EXPLAINS = "help" in click.Argument.__init__.__code__.co_varnames
# And click 8.2 gave make_metavar the context.
_METAVAR_TAKES_CONTEXT = "ctx" in click.Parameter.make_metavar.__code__.co_varnames


class Argument(click.Argument):
    """An argument with a help text."""

    def __init__(self, *names: Any, help: str, **settings: Any) -> None:
        if _CLICK_EXPLAINS:
            settings["help"] = help
        super().__init__(*names, **settings)
        self.help = help

    def row(self, context: click.Context) -> tuple[str, str]:
        """Its line of the help."""
        name = self.make_metavar(*([context] if _METAVAR_TAKES_CONTEXT else []))
        return name, self.help or ""


class Command(click.Command):
    """A command that lists its arguments above its options."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = [item.row(ctx) for item in self.get_params(ctx) if isinstance(item, Argument)]
        if rows and not _CLICK_EXPLAINS:
            with formatter.section("Positional arguments"):
                formatter.write_dl(rows)
        super().format_options(ctx, formatter)


class Group(click.Group):
    """The group of the commands."""

    command_class = Command


def command(**settings: Any) -> Callable[[Callable[..., Any]], click.Command]:
    """A command of the program; ``settings`` as for ``click.command``."""
    return click.command(cls=Command, context_settings=SETTINGS, **settings)


def argument(*names: str, help: str, **settings: Any) -> Callable[[Function], Function]:
    """An argument with its explanation; ``settings`` as for ``click.argument``."""
    return click.argument(*names, cls=Argument, help=help, **settings)


def option(*names: str, **settings: Any) -> Callable[[Function], Function]:
    """An option, whose help names its environment variable; ``settings`` as for ``click.option``."""
    return click.option(*names, show_envvar=True, **settings)


def count(*names: str, least: int = 1, **settings: Any) -> Callable[[Function], Function]:
    """An option with a whole number of at least ``least``."""
    return option(*names, type=click.IntRange(least), metavar="N", **settings)


model = option(
    "--model",
    "-m",
    metavar="MODEL",
    help="Model file, directory of a checkpoint, or NAME for models/NAME.bin or a known model, which is fetched when it "
    "is not here yet ('qwen3asr models' lists them). Without it: the built-in mini model.",
)
threads = count(
    "--threads", "-t", envvar="INFERENCE_THREADS", help="Threads to compute with; default: all processors."
)
context_length = count(
    "--context-length", envvar="CONTEXT_LENGTH", help="Most tokens of prompt and answer together."
)
kernels = option("--kernels", help="Kernel set, as --version lists them; default: the best one.")
as_json = option("--json", "as_json", is_flag=True, help="Print one JSON object on a line.")
