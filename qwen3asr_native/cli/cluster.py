"""The command ``qwen3asr cluster``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import command, epilog, signals
from .command import argument, count, option
from .terminal import note

if TYPE_CHECKING:
    from ..cluster import Summary


@command.command(
    short_help="Transcribe many files on many machines, with Ray.",
    epilog=epilog.closing(
        "qwen3asr cluster recordings/ --output texts/",
        "qwen3asr cluster calls.jsonl more.parquet --output /shared/texts --address ray://head:10001",
        statuses={"1": "nothing could be done, or at least one file has an error in its row"},
    ),
)
@argument(
    "sources",
    metavar="FILE...",
    nargs=-1,
    required=True,
    help='Audio files, directories, manifests (.txt, .jsonl with "audio"), Parquet with a column "bytes".',
)
@option(
    "--output",
    "-o",
    type=click.Path(path_type=Path),
    metavar="DIR",
    required=True,
    help="Where the shards go; all machines must see it.",
)
@command.model
@option(
    "--address",
    metavar="ADDRESS",
    help="A running cluster, such as ray://host:10001; default: this machine alone.",
)
@count("--actors", help="Models at a time; default: as many as the processors allow.")
@count("--threads", "-t", default=2, help="Processors of each model.")
@count("--shard-size", default=64, help="Files of a shard, which is what is lost when a machine dies.")
@option(
    "--format", "form", type=click.Choice(["jsonl", "parquet"]), default="jsonl", help="Form of the output."
)
@option("--language", "-l", help="Force a language; default: detect.")
@option("--context", default="", show_default=False, help="Text that helps recognition.")
@option("--script", help="Chinese script to write, for example zh-TW.")
@option("--itn", is_flag=True, help="Write spoken Chinese numbers as digits.")
def cluster(
    sources: tuple[str, ...],
    output: Path,
    model: str | None,
    address: str | None,
    actors: int | None,
    threads: int,
    shard_size: int,
    form: str,
    language: str | None,
    context: str,
    script: str | None,
    itn: bool,
) -> None:
    """Transcribe many files on a Ray cluster; every shard of them becomes one file of the output.

    What is in the output already is not done again.
    """
    summary = _transcribe(
        sources=list(sources),
        output=output,
        model=model,
        actors=actors,
        threads=threads,
        shard_size=shard_size,
        format=form,
        address=address,
        language=language,
        context=context,
        script=script,
        itn=itn,
    )
    note(
        f"{summary.items} recognized in {summary.shards - summary.skipped} shards, {summary.failed} with an error; "
        f"{summary.skipped} of {summary.shards} shards were there already"
    )
    if summary.failed:
        raise click.exceptions.Exit(1)


def _transcribe(**arguments: Any) -> Summary:
    from ..cluster import transcribe

    if os.name != "posix":
        return transcribe(**arguments)
    # Ray's processes find their ends by themselves only once all have begun, and Ray has ends of its own for signals.
    from ..cluster.apart import Driver

    driver = Driver()
    with signals.stopping(driver.stop, patient=True):
        summary = driver.run(**arguments)
    if summary is None:
        raise signals.Interrupted
    return summary
