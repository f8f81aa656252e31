"""``qwen3asr align``: when each word of a text is said."""

from __future__ import annotations

from pathlib import Path

import click

from ..errors import ArgumentError
from . import epilog
from .command import argument, as_json, command, kernels, option, threads
from .terminal import print_json, print_line


@command(
    short_help="Tell when each word of a text is said.",
    epilog=epilog.closing(
        "qwen3asr align talk.wav talk.txt",
        "qwen3asr align --aligner qwen3-forced-aligner-0.6b-q4_0 talk.wav talk.txt",
        "qwen3asr align --aligner aligner.bin --language ja --json talk.wav talk.txt",
    ),
)
@argument("audio", metavar="AUDIO", type=click.Path(path_type=Path), help="Audio file, at most 5 minutes.")
@argument("text", metavar="TEXT_FILE", type=click.Path(path_type=Path), help="What is said in it, in UTF-8.")
@option(
    "--aligner",
    "-a",
    metavar="MODEL",
    help="Forced aligner: model file, directory of a checkpoint, or a name that 'qwen3asr models' lists. Without it: the "
    "built-in mini aligner.",
)
@option("--language", "-l", metavar="LANGUAGE", help="Name or ISO code; matters for Japanese and Korean.")
@threads
@kernels
@as_json
def align(
    audio: Path,
    text: Path,
    aligner: str | None,
    language: str | None,
    threads: int | None,
    kernels: str | None,
    as_json: bool,
) -> None:
    """Tell when each word of a text is said: begin and end in seconds, and the word, on a line each."""
    from ..aligner import Aligner

    try:
        content = text.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ArgumentError(f"cannot read the text '{text}': {reason}") from None
    with Aligner(aligner, threads=threads, kernels=kernels) as loaded:
        words = loaded.align(audio, content, language)
    for word in words:
        if as_json:
            print_json(
                {
                    "start": word.start,
                    "end": word.end,
                    "text": word.text,
                    "offset": word.offset,
                    "end_offset": word.end_offset,
                }
            )
        else:
            print_line(f"{word.start:.3f}\t{word.end:.3f}\t{' '.join(word.text.split())}")
