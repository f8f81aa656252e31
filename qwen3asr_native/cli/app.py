"""The program: its commands, what they all share, and how it ends."""

from __future__ import annotations

import errno
import importlib
import io
import sys

import click

from .. import __version__
from ..errors import Qwen3AsrError
from . import epilog, signals
from .command import SETTINGS, Group
from .terminal import discard_output, note, prepare_streams, print_line, print_log, report

NAME = "qwen3asr"
INTERRUPTED = 130

#: Command -> the module of this package with the function of that name. One line here adds a command.
COMMANDS = {
    "transcribe": "transcribe",
    "live": "live",
    "align": "align",
    "info": "models",
    "itn": "itn",
    "serve": "serve",
    "cluster": "cluster",
    "models": "models",
    "download": "models",
    "convert": "models",
    "quantize": "models",
    "bench": "lab",
    "leaks": "lab",
    "doctor": "doctor",
}


class _Commands(Group):
    """Finds a command when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f".{COMMANDS[cmd_name]}", __package__)
        command: click.Command = getattr(module, cmd_name)
        return command


def _print_version(context: click.Context, _option: click.Parameter, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        from ..engine import engine_version, kernel_sets

        print_line(f"qwen3asr {__version__} (engine {engine_version()}, kernels {', '.join(kernel_sets())})")
        context.exit()


def _show_completion(context: click.Context, _option: click.Parameter, shell: str | None) -> None:
    if shell is not None and not context.resilient_parsing:
        from . import completion

        print_line(completion.script(shell))
        context.exit()


def _install_completion(context: click.Context, _option: click.Parameter, shell: str | None) -> None:
    if shell is not None and not context.resilient_parsing:
        from . import completion

        print_line(completion.install(shell))
        context.exit()


@click.command(
    cls=_Commands,
    name=NAME,
    epilog=epilog.closing(
        "qwen3asr transcribe talk.wav                              # with the small built-in model: spoken numbers",
        "qwen3asr transcribe --model qwen3-asr-0.6b-q4_0 talk.wav  # fetches the model when it is not here yet",
        "qwen3asr models                                           # what there is to fetch",
        variables=True,
    ),
    no_args_is_help=True,
    context_settings=SETTINGS,
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Print the version and exit.",
)
@click.option(
    "--install-completion",
    is_flag=False,
    flag_value="",
    metavar="[SHELL]",
    is_eager=True,
    expose_value=False,
    callback=_install_completion,
    help="Install completion for bash, zsh or fish; default: the shell of SHELL.",
)
@click.option(
    "--show-completion",
    is_flag=False,
    flag_value="",
    metavar="[SHELL]",
    is_eager=True,
    expose_value=False,
    callback=_show_completion,
    help="Print the completion script of a shell, to install it by hand.",
)
def app() -> None:
    """Speech recognition with Qwen3-ASR on a CPU.

    The text goes to standard output, everything else to standard error. 'qwen3asr COMMAND --help' explains a command.
    """


def run(arguments: list[str]) -> int:
    """Runs a command line and returns its exit status: 0, 1 for an error, which is one sentence, 2 for a mistake in the
    command line, 128 + the number of a signal that ended it (130 for Ctrl-C)."""
    try:
        status = _run(arguments)
    except KeyboardInterrupt:
        status = INTERRUPTED
    return signals.status() or status


def _run(arguments: list[str]) -> int:
    try:
        with app.make_context(NAME, arguments) as context:
            app.invoke(context)
            sys.stdout.flush()
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.ClickException as mistake:
        shown = io.StringIO()
        mistake.show(shown)
        for line in shown.getvalue().splitlines():
            note(line)
        return mistake.exit_code
    except Qwen3AsrError as error:
        if signals.caught() is None:  # else it may be what the signal has broken
            report(error)
        return 1
    except OSError as error:
        if error.errno != errno.EPIPE:  # the reader has what it wanted
            what = "standard output" if error.filename is None else f"'{error.filename}'"
            note(f"qwen3asr: {what} cannot be written: {error.strerror or error}")
        discard_output()
        return 1
    return 0


def main() -> None:
    """Entry point of the program."""
    prepare_streams()
    print_log()
    from .completion import complete

    complete(app)
    signals.listen()
    status = run(sys.argv[1:])
    signals.end()
    sys.exit(status)
