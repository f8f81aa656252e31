"""The command ``qwen3asr transcribe``."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import ArgumentError, AudioError, LanguageError, Qwen3AsrError
from . import command, epilog, signals
from .command import argument, option
from .terminal import note, print_json, print_table, print_text, report, safe

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
@option("--no-names", is_flag=True, help="With several files: do not begin each line with the file's name.")
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
    no_names: bool,
    max_new_tokens: int | None,
    chunk_seconds: float,
    kernels: str | None,
    library: str | None,
) -> None:
    """Print what is said in audio files, while it is being recognized.

    A file that cannot be read is reported, the others still run. Ctrl-C prints what there is. With several files a line
    begins with the file's name and a tab.
    """
    from ..model import Model

    opened = Model(
        model,
        dtype=dtype,
        threads=_sensible_threads(threads),
        kernels=kernels,
        library=library,
        context_length=context_length,
    )

    def begin(file: str) -> Stream:
        return opened.stream(
            _standard_input() if file == "-" else file,
            language,
            context=context,
            script=script,
            itn=itn,
            max_new_tokens=max_new_tokens,
            chunk_seconds=chunk_seconds,
        )

    names = len(files) > 1 and not as_json and not no_names
    try:
        # In a list: the files after a bad one still run.
        good = [_transcribe_file(file, begin, names, as_json, itn, timings) for file in files]
    finally:
        with signals.holding():
            opened.close()
    if not all(good):
        raise click.exceptions.Exit(1)


def _sensible_threads(wanted: int | None) -> int | None:
    """No more than there are processors: they would wait for each other."""
    from ..arguments import processors

    if wanted is None or wanted <= processors():
        return wanted
    note(f"qwen3asr: {wanted} threads are more than the processors that may be used; taking {processors()}")
    return processors()


def _standard_input() -> Any:
    if sys.stdin is None:
        raise AudioError("standard input is closed; give the name of a file")
    return sys.stdin.buffer


def _transcribe_file(
    file: str, begin: Callable[[str], Stream], named: bool, as_json: bool, whole: bool, timings: bool
) -> bool:
    """Prints one transcription; False, and a sentence on standard error, when it fails."""
    try:
        stream = begin(file)
        with signals.stopping(stream.abort), stream:
            transcript = _print_json(stream, file) if as_json else _print_text(stream, file, named, whole)
    except (ArgumentError, LanguageError):
        raise  # no file can do better
    except Qwen3AsrError as error:
        if signals.caught() is None:
            report(error)
        if as_json:
            print_json({**_named(file), "error": str(error)})
        return False
    if signals.caught() is not None:
        raise signals.Interrupted
    said = incomplete(transcript)
    if said:
        note(f"qwen3asr: '{file}': {said}")
    if timings:
        _print_timings(transcript.timings)
    return True


#: How an answer ended that did not end by itself.
_ENDS = {
    "length": "the text is cut off: the limit of tokens, or the model's context, was reached",
    "loop": "the model repeated itself without end; the repetition was cut",
    "abort": "the text is cut off: recognition was stopped",
    "error": "the text is cut off: recognition failed",
}


def incomplete(transcript: Transcript) -> str | None:
    """What is wrong with a text whose parts did not all end by themselves; None when they did."""
    found = [(segment.finish, segment) for segment in transcript.segments if segment.finish in _ENDS]
    if transcript.finish in _ENDS and transcript.finish not in [finish for finish, _ in found]:
        return _ENDS[transcript.finish]
    if not found:
        return None
    finish, segment = found[0]
    where = f" at {segment.start:.1f} s" if len(transcript.segments) > 1 else ""
    more = f", and {len(found) - 1} more" if len(found) > 1 else ""
    return f"{_ENDS[str(finish)]} ({finish}{where}{more})"


def _print_text(stream: Stream, file: str, named: bool, whole: bool) -> Transcript:
    """Prints the text as it comes, or whole at the end; after Ctrl-C what there is. Nothing for a file that fails."""
    begun = False

    def put(text: str) -> None:
        nonlocal begun
        if not begun and named:
            print_text(f"{safe(file)}\t")
        begun = True
        print_text(text.replace("\n", " ") if named else text)

    try:
        for token in stream:
            if token.text and not whole:
                put(token.text)
    finally:
        stream.close()
        if whole and stream.has_transcript:
            put(stream.transcript.text)
        if begun or stream.has_transcript:
            put("")
            print_text("\n")
    return stream.transcript


def _print_json(stream: Stream, file: str) -> Transcript:
    try:
        stream.finish()
    finally:
        stream.close()
        if stream.has_transcript:
            transcript = stream.transcript
            complete = incomplete(transcript) is None
            print_json({**_named(file), **transcript.to_dict(), "complete": complete})
    return stream.transcript


def _named(file: str) -> dict[str, str]:
    """A file in JSON. A name that is not UTF-8 cannot be written there; the URI keeps its bytes."""
    if file.isprintable() or not any("\ud800" <= character <= "\udfff" for character in file):
        return {"file": file}
    return {"file": file, "file_uri": Path(os.path.abspath(file)).as_uri()}


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
