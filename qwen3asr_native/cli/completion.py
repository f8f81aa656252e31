"""Completion of commands and options in bash, zsh and fish."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from ..errors import ArgumentError
from ..files.output import replace

_PROGRAM = "qwen3asr"
_VARIABLE = "_QWEN3ASR_COMPLETE"
# Where each shell looks by itself; zsh needs the folder in its fpath.
_FILES = {
    "bash": "~/.local/share/bash-completion/completions/qwen3asr",
    "zsh": "~/.zfunc/_qwen3asr",
    "fish": "~/.config/fish/completions/qwen3asr.fish",
}


def complete(app: click.Command) -> None:
    """Answers a shell that asks for completions, and ends the program; returns when no shell asks."""
    instruction = os.environ.get(_VARIABLE)
    if instruction:
        from click.shell_completion import shell_complete

        sys.exit(shell_complete(app, {}, _PROGRAM, _VARIABLE, instruction))


def script(shell: str) -> str:
    """What a shell has to read; an empty name is the shell of the variable SHELL. Raises ArgumentError."""
    from click.shell_completion import get_completion_class

    from .app import app

    kind = get_completion_class(_known(shell))
    assert kind is not None
    # Not source(): for bash it starts bash to look at its version.
    completer = kind(app, {}, _PROGRAM, _VARIABLE)
    return completer.source_template % completer.source_vars()


def install(shell: str) -> str:
    """Writes that to where the shell looks for it; returns a sentence. Raises ArgumentError, OutputError."""
    shell = _known(shell)
    path = Path(_FILES[shell]).expanduser()
    replace(path, script(shell) + "\n")
    more = "" if shell != "zsh" else "; put 'fpath+=~/.zfunc; autoload -Uz compinit; compinit' into ~/.zshrc"
    return f"completion for {shell} is in {path}{more}; it works in new shells"


def _known(shell: str) -> str:
    name = shell or Path(os.environ.get("SHELL", "")).name
    if name not in _FILES:
        raise ArgumentError(f"there is no completion for the shell '{name}'; name one of {', '.join(_FILES)}")
    return name
