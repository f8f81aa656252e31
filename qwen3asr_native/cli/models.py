"""The commands that get, make and change model files: ``models``, ``download``, ``convert``, ``quantize``."""

# No postponed annotations in this file: typer does not read them on Python 3.9.

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer
from typer.core import TyperCommand

from . import epilog

if TYPE_CHECKING:
    from ..files.convert import Progress

INTERRUPTED = 130
TYPES = "f32, f16, q8_0, q4_0, q4_1, q4_k"

_TYPE_HELP = f"Type of the tensors: {TYPES}."
_TENSOR_TYPE_HELP = (
    "Another type for the tensors whose names match a shell pattern, such as 'lm_head.*' q8_0; may be given "
    "several times, and the first that matches wins."
)


class _PairsCommand(TyperCommand):
    """A command with --tensor-type PATTERN TYPE: typer has no option of two words that may be repeated."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, _join_pairs(args))


def _join_pairs(arguments: list[str]) -> list[str]:
    joined = []
    words = iter(arguments)
    for word in words:
        joined.append(f"{word}={next(words, '')}={next(words, '')}" if word == "--tensor-type" else word)
    return joined


def _split_pairs(values: Optional[list[str]]) -> list[tuple[str, str]]:
    parts = [value.rpartition("=") for value in values or ()]
    return [(pattern, kind) for pattern, _, kind in parts]


def register(app: typer.Typer) -> None:
    """Adds the commands to a command line."""
    app.command(
        short_help="List the known models, and where they are.",
        epilog=epilog.closing("qwen3asr models", "qwen3asr models --json"),
    )(models)
    app.command(
        epilog=epilog.closing(
            "qwen3asr download qwen3-asr-0.6b-q4_0              # for every project",
            "qwen3asr download qwen3-asr-0.6b-q4_0 --to models  # into this directory",
            "HF_ENDPOINT=https://hub.example.org qwen3asr download Qwen3-ASR-0.6B",
            statuses={"130": "Ctrl-C; the same command goes on where it ended"},
        )
    )(download)
    app.command(
        cls=_PairsCommand,
        short_help="Make a model file from a checkpoint.",
        epilog=epilog.closing(
            "qwen3asr convert Qwen3-ASR-0.6B qwen3-asr-0.6b-q4_0.bin",
            "qwen3asr convert Qwen3-ASR-0.6B mixed.bin --type q4_0 --tensor-type 'lm_head.*' q8_0",
            statuses={"130": "Ctrl-C; OUT.bin is as it was before"},
        ),
    )(convert)
    app.command(
        cls=_PairsCommand,
        epilog=epilog.closing(
            "qwen3asr quantize qwen3-asr-0.6b-f16.bin qwen3-asr-0.6b-q8_0.bin --type q8_0",
            statuses={"130": "Ctrl-C; OUT.bin is as it was before"},
        ),
    )(quantize)


def models(
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object for each model, on a line.")
    ] = False,
) -> None:
    """List the known models: what they are, their size and licence, and where they are."""
    from ..files import hub

    rows = [
        {
            "name": hub.BUILT_IN_NAME,
            "kind": "built in",
            "bytes": _file_size(hub.built_in_model()),
            "licence": "Apache-2.0",
            "source": "this package",
            "sha256": None,
            "path": os.fspath(hub.built_in_model()),
        },
        *(_row(model) for model in hub.KNOWN_MODELS.values()),
    ]
    if as_json:
        for row in rows:
            print(json.dumps(row, ensure_ascii=False))
        return
    _print_models(rows)


def _row(model: Any) -> dict[str, Any]:
    here = next((path for path in (Path("models") / str(model.file), model.cached) if path.exists()), None)
    return {
        "name": model.name,
        "kind": "checkpoint" if model.is_checkpoint else "model file",
        "bytes": model.size if here is None or here.is_dir() else _file_size(here),
        "licence": model.licence,
        "source": f"https://huggingface.co/{model.repository}",
        "sha256": model.sha256,
        "path": None if here is None else os.fspath(here),
    }


def _file_size(path: Path) -> int:
    return path.stat().st_size


def _print_models(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("name", "kind", "bytes", "licence", "source", "on this machine"):
        table.add_column(heading, overflow="fold", justify="right" if heading == "bytes" else "left")
    for row in rows:
        size = "" if row["bytes"] is None else f"{row['bytes']:,}"
        table.add_row(row["name"], row["kind"], size, row["licence"], row["source"], row["path"] or "no")
    Console(highlight=False, width=None if sys.stdout.isatty() else 200).print(table)


def download(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A name that 'qwen3asr models' lists.")],
    to: Annotated[
        Optional[Path],
        typer.Option(
            "--to", metavar="DIR", help="Folder to put it into, for example models; default: in HF_HOME."
        ),
    ] = None,
) -> None:
    """Fetch a known model and print where it is.

    What an interrupted run has fetched is kept, and the next run goes on from there. The environment variables HF_HOME,
    HF_ENDPOINT, HF_HUB_OFFLINE and HF_TOKEN mean what they mean to Hugging Face's tools.
    """
    from ..files import hub
    from ..files.download import download as fetch

    with _interruptible("what has arrived is kept, and the same command goes on from there"):
        path = hub.built_in_model() if name == hub.BUILT_IN_NAME else fetch(hub.known_model(name), to)
    print(path)


def convert(
    source: Annotated[Path, typer.Argument(metavar="HF_DIR", help="Directory of a Hugging Face checkpoint.")],
    out: Annotated[Path, typer.Argument(metavar="OUT.bin", help="Model file to write.")],
    kind: Annotated[str, typer.Option("--type", help=_TYPE_HELP)] = "q4_0",
    tensor_types: Annotated[
        Optional[list[str]],
        typer.Option("--tensor-type", metavar="PATTERN TYPE", help=_TENSOR_TYPE_HELP),
    ] = None,
    name: Annotated[
        Optional[str], typer.Option(help="The model's name in the file; default: the name of HF_DIR.")
    ] = None,
) -> None:
    """Make a model file from a checkpoint of Qwen3-ASR or of its forced aligner.

    OUT.bin appears when it is complete, never before.
    """
    from ..files.convert import convert as write

    with _interruptible(f"'{out}' was not written"), _progress(out) as progress:
        write(source, out, kind, _split_pairs(tensor_types), name, progress)
    print(out)


def quantize(
    source: Annotated[Path, typer.Argument(metavar="IN.bin", help="Model file, best of type f16 or q8_0.")],
    out: Annotated[Path, typer.Argument(metavar="OUT.bin", help="Model file to write.")],
    kind: Annotated[str, typer.Option("--type", help=_TYPE_HELP)] = "q4_0",
    tensor_types: Annotated[
        Optional[list[str]],
        typer.Option("--tensor-type", metavar="PATTERN TYPE", help=_TENSOR_TYPE_HELP),
    ] = None,
) -> None:
    """Write a model file again with tensors of another type.

    OUT.bin appears when it is complete, never before.
    """
    from ..files.convert import quantize as write

    with _interruptible(f"'{out}' was not written"), _progress(out) as progress:
        write(source, out, kind, _split_pairs(tensor_types), progress)
    print(out)


@contextmanager
def _interruptible(state: str) -> Iterator[None]:
    """Ends with a sentence at Ctrl-C: ``state`` says what that leaves."""
    try:
        yield
    except KeyboardInterrupt:
        print(f"qwen3asr: interrupted; {state}", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None


@contextmanager
def _progress(out: Path) -> Iterator["Progress"]:
    """A progress bar on standard error, where that is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task(out.name, total=None)

        def show(written: int, total: int, _name: str) -> None:
            bar.update(task, completed=written, total=total)

        yield show
