"""The commands that get, make, change and describe model files: ``info``, ``models``, ``download``, ``convert``, ``quantize``."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from . import epilog
from .command import Function, argument, as_json, command, option
from .terminal import note, output, print_json, print_line, print_table, progress

INTERRUPTED = 130
TYPES = "f32, f16, q8_0, q4_0, q4_1, q4_k"
_FILE = click.Path(path_type=Path)


def _tensor_types(function: Function) -> Function:
    """The options that name the types of the tensors."""
    return option("--type", "kind", metavar="TYPE", default="q4_0", help=f"Type of the tensors: {TYPES}.")(
        option(
            "--tensor-type",
            "tensor_types",
            nargs=2,
            multiple=True,
            metavar="PATTERN TYPE",
            help="Another type for the tensors whose names match a shell pattern, such as 'lm_head.*' q8_0; may be "
            "given several times, and the first that matches wins.",
        )(function)
    )


@command(epilog=epilog.closing("qwen3asr info models/qwen3-asr-0.6b-q4_0.bin", "qwen3asr info --json"))
@argument(
    "model",
    metavar="MODEL",
    required=False,
    help="Model file, or NAME for models/NAME.bin. Without it: the built-in mini model.",
)
@as_json
def info(model: str | None, as_json: bool) -> None:
    """Print what is in a model file, from its header."""
    from ..engine import inspect_model
    from ..files import hub

    path = hub.resolve(model)
    description = inspect_model(path)
    if as_json:
        print_json(description)
    else:
        print_table({"file": os.fspath(path), **description})


@command(
    short_help="List the known models, and where they are.",
    epilog=epilog.closing("qwen3asr models", "qwen3asr models --json"),
)
@option("--json", "as_json", is_flag=True, help="Print one JSON object for each model, on a line.")
def models(as_json: bool) -> None:
    """List the known models: what they are, their size and licence, and where they are."""
    from ..files import hub

    built_in = {hub.BUILT_IN_NAME: hub.built_in_model(), hub.BUILT_IN_ALIGNER_NAME: hub.built_in_aligner()}
    rows = [
        *(
            {
                "name": name,
                "kind": "built in",
                "bytes": _file_size(path),
                "licence": "Apache-2.0",
                "source": "this package",
                "sha256": None,
                "path": os.fspath(path),
            }
            for name, path in built_in.items()
        ),
        *(_row(model) for model in hub.KNOWN_MODELS.values()),
    ]
    if as_json:
        for row in rows:
            print_json(row)
    else:
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
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("name", "kind", "bytes", "licence", "source", "on this machine"):
        table.add_column(heading, overflow="fold", justify="right" if heading == "bytes" else "left")
    for row in rows:
        size = "" if row["bytes"] is None else f"{row['bytes']:,}"
        table.add_row(row["name"], row["kind"], size, row["licence"], row["source"], row["path"] or "no")
    output().print(table)


@command(
    epilog=epilog.closing(
        "qwen3asr download qwen3-asr-0.6b-q4_0              # for every project",
        "qwen3asr download qwen3-asr-0.6b-q4_0 --to models  # into this directory",
        "HF_ENDPOINT=https://hub.example.org qwen3asr download Qwen3-ASR-0.6B",
        statuses={"130": "Ctrl-C; the same command goes on where it ended"},
    )
)
@argument("name", metavar="NAME", help="A name that 'qwen3asr models' lists.")
@option(
    "--to",
    type=_FILE,
    metavar="DIR",
    help="Folder to put it into, for example models; default: in HF_HOME.",
)
def download(name: str, to: Path | None) -> None:
    """Fetch a known model and print where it is.

    What an interrupted run has fetched is kept, and the next run goes on from there. The environment variables HF_HOME,
    HF_ENDPOINT, HF_HUB_OFFLINE and HF_TOKEN mean what they mean to Hugging Face's tools.
    """
    from ..files import hub
    from ..files.download import download as fetch

    with _interruptible("what has arrived is kept, and the same command goes on from there"):
        here = name in (hub.BUILT_IN_NAME, hub.BUILT_IN_ALIGNER_NAME)
        path = hub.resolve(name) if here else fetch(hub.known_model(name), to)
    print_line(os.fspath(path))


@command(
    short_help="Make a model file from a checkpoint.",
    epilog=epilog.closing(
        "qwen3asr convert Qwen3-ASR-0.6B qwen3-asr-0.6b-q4_0.bin",
        "qwen3asr convert Qwen3-ASR-0.6B mixed.bin --type q4_0 --tensor-type 'lm_head.*' q8_0",
        statuses={"130": "Ctrl-C; OUT.bin is as it was before"},
    ),
)
@argument("source", type=_FILE, metavar="HF_DIR", help="Directory of a Hugging Face checkpoint.")
@argument("out", type=_FILE, metavar="OUT.bin", help="Model file to write.")
@_tensor_types
@option("--name", help="The model's name in the file; default: the name of HF_DIR.")
def convert(
    source: Path, out: Path, kind: str, tensor_types: tuple[tuple[str, str], ...], name: str | None
) -> None:
    """Make a model file from a checkpoint of Qwen3-ASR or of its forced aligner.

    OUT.bin appears when it is complete, never before.
    """
    from ..files.convert import convert as write

    with _interruptible(f"'{out}' was not written"), _progress(out) as show:
        write(source, out, kind, list(tensor_types), name, show)
    print_line(os.fspath(out))


@command(
    epilog=epilog.closing(
        "qwen3asr quantize qwen3-asr-0.6b-f16.bin qwen3-asr-0.6b-q8_0.bin --type q8_0",
        statuses={"130": "Ctrl-C; OUT.bin is as it was before"},
    ),
)
@argument("source", type=_FILE, metavar="IN.bin", help="Model file, best of type f16 or q8_0.")
@argument("out", type=_FILE, metavar="OUT.bin", help="Model file to write.")
@_tensor_types
def quantize(source: Path, out: Path, kind: str, tensor_types: tuple[tuple[str, str], ...]) -> None:
    """Write a model file again with tensors of another type.

    OUT.bin appears when it is complete, never before.
    """
    from ..files.convert import quantize as write

    with _interruptible(f"'{out}' was not written"), _progress(out) as show:
        write(source, out, kind, list(tensor_types), show)
    print_line(os.fspath(out))


@contextmanager
def _interruptible(state: str) -> Iterator[None]:
    """Ends with a sentence at Ctrl-C: ``state`` says what that leaves."""
    try:
        yield
    except KeyboardInterrupt:
        note(f"qwen3asr: interrupted; {state}")
        raise click.exceptions.Exit(INTERRUPTED) from None


@contextmanager
def _progress(out: Path) -> Iterator[Callable[[int, int, str], None]]:
    """A bar of the bytes that are written."""
    with progress(None, bytes_of=out.name) as step:
        yield lambda written, total, _name: step(out.name, written, total)
