"""The command ``qwen3asr transcribe``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from ..errors import ArgumentError, LanguageError, Qwen3AsrError
from . import command, epilog
from .command import argument, option
from .terminal import note, print_json, print_line, print_table, report

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..stream import Stream
    from ..transcript import Timings, Transcript


@command.command(
    epilog=epilog.closing(
        "qwen3asr transcribe talk.wav",
        "qwen3asr transcribe --model models/qwen3-asr-0.6b-q4_0.bin --script zh-TW --itn talk.mp3",
        "qwen3asr transcribe --language English --context 'PostgreSQL, Taipei' --timings talk.flac",
        "qwen3asr transcribe --json *.wav > talks.jsonl",
        "qwen3asr transcribe - < talk.ogg",
        statuses={"1": "at least one file, or the model, cannot be used; standard error says why"},
    )
)
@argument(
    "files",
    metavar="FILE...",
    nargs=-1,
    required=True,
    help="Audio files (WAV, FLAC, Ogg, MP3) of any rate; - reads standard input.",
)
@command.model
@option(
    "--dtype",
    metavar="TYPE",
    help="Type to load the directory of a checkpoint as: q8_0, q4_0, q4_1, q4_k or f16; default: q8_0.",
)
@option("--language", "-l", help="Force a language by its English name; default: detect.")
@option(
    "--context",
    default="",
    show_default=False,
    help="Text that helps recognition: names, terms, the topic.",
)
@option("--script", help="Chinese script to write: zh-TW, or an OpenCC configuration such as s2t.")
@option("--itn", is_flag=True, help="Write spoken Chinese numbers as digits.")
@command.threads
@command.context_length
@option("--timings", is_flag=True, help="Print the time of each stage on standard error.")
@option("--json", "as_json", is_flag=True, help="Print one JSON object for each file, on a line.")
@command.count("--max-new-tokens", help="Limit of tokens; default: from the length of the audio.")
@option(
    "--chunk-seconds",
    type=click.FloatRange(1, 1200),
    metavar="SECONDS",
    default=1200.0,
    help="Cut longer audio near this length, where it is quiet.",
)
@command.kernels
@option("--library", help="Another build of chatllm.cpp's library to use instead of the built-in engine.")
def transcribe(
    files: tuple[str, ...],
    model: str | None,
    dtype: str | None,
    language: str | None,
    context: str,
    script: str | None,
    itn: bool,
    threads: int | None,
    context_length: int | None,
    timings: bool,
    as_json: bool,
    max_new_tokens: int | None,
    chunk_seconds: float,
    kernels: str | None,
    library: str | None,
) -> None:
    """Print what is said in audio files, while it is being recognized.

    A file that cannot be read is reported, the others still run. Ctrl-C prints what there is.
    """
    from ..model import Model

    with Model(
        model,
        dtype=dtype,
        threads=threads,
        kernels=kernels,
        library=library,
        context_length=context_length,
    ) as opened:

        def begin(file: str) -> Stream:
            return opened.stream(
                sys.stdin.buffer if file == "-" else file,
                language,
                context,
                script,
                itn,
                max_new_tokens,
                chunk_seconds=chunk_seconds,
            )

        # In a list: the files after a bad one still run.
        good = [_transcribe_file(file, begin, len(files) > 1, as_json, itn, timings) for file in files]
    if not all(good):
        raise click.exceptions.Exit(1)


def _transcribe_file(
    file: str, begin: Callable[[str], Stream], named: bool, as_json: bool, whole: bool, timings: bool
) -> bool:
    """Prints one transcription; False, and a sentence on standard error, when it fails."""
    if named and not as_json:
        note(f"{file}:")
    try:
        stream = begin(file)
        transcript = _print_json(stream, file) if as_json else _print_text(stream, whole)
    except (ArgumentError, LanguageError):
        raise  # no file can do better
    except Qwen3AsrError as error:
        report(error)
        if as_json:
            print_json({"file": file, "error": str(error)})
        return False
    if timings:
        _print_timings(transcript.timings)
    return True


def _print_text(stream: Stream, whole: bool) -> Transcript:
    """Prints the text as it comes, or whole at the end; after Ctrl-C what there is."""
    with stream:
        try:
            for token in stream:
                if not whole:
                    print(token.text, end="", flush=True)
        finally:
            stream.close()
            print_line(stream.transcript.text if whole and stream.has_transcript else "")
    return stream.transcript


def _print_json(stream: Stream, file: str) -> Transcript:
    try:
        with stream:
            stream.finish()
    finally:
        if stream.has_transcript:
            print_json({"file": file, **stream.transcript.to_dict()})
    return stream.transcript


def _print_timings(timings: Timings) -> None:
    rows: dict[str, Any] = {
        "audio": f"{timings.audio_ms / 1000:.2f} s",
        "load": _milliseconds(timings.load_ms),
        "mel": _milliseconds(timings.mel_ms),
        "encode": _milliseconds(timings.encode_ms),
        "prefill": _milliseconds(timings.prefill_ms),
        "first token": _milliseconds(timings.first_token_ms),
        "per token": _milliseconds(timings.per_token_ms),
        "total": _milliseconds(timings.total_ms),
        "tokens": timings.new_tokens,
        "real-time factor": f"{timings.real_time_factor:.3f}",
    }
    print_table({name: value for name, value in rows.items() if value is not None}, error=True)


def _milliseconds(value: float | None) -> str | None:
    return None if value is None else f"{value:.1f} ms"
