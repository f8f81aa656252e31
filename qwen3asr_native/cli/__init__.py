"""The command line ``qwen3asr``: text on standard output, everything else on standard error."""

# No postponed annotations in this file: typer does not read them on Python 3.9.

import io
import json
import os
import sys
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from .. import __version__
from ..errors import ArgumentError, LanguageError, Qwen3AsrError
from . import epilog, lab, models

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..stream import Stream
    from ..transcript import Timings, Transcript

INTERRUPTED = 130

app = typer.Typer(
    name="qwen3asr",
    help="Speech recognition with Qwen3-ASR on a CPU.\n\nThe text goes to standard output, everything else to standard "
    "error. 'qwen3asr COMMAND --help' explains a command.",
    epilog=epilog.closing(
        "qwen3asr transcribe talk.wav                              # with the small built-in model: spoken numbers",
        "qwen3asr transcribe --model qwen3-asr-0.6b-q4_0 talk.wav  # fetches the model when it is not here yet",
        "qwen3asr models                                           # what there is to fetch",
        variables=True,
    ),
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain text, which keeps the lines of the examples
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from ..engine import engine_version, kernel_sets

        print(f"qwen3asr {__version__} (engine {engine_version()}, kernels {', '.join(kernel_sets())})")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    pass


@app.command(
    epilog=epilog.closing(
        "qwen3asr transcribe talk.wav",
        "qwen3asr transcribe --model models/qwen3-asr-0.6b-q4_0.bin --script zh-TW --itn talk.mp3",
        "qwen3asr transcribe --language English --context 'PostgreSQL, Taipei' --timings talk.flac",
        "qwen3asr transcribe --json *.wav > talks.jsonl",
        "qwen3asr transcribe - < talk.ogg",
        statuses={"1": "at least one file, or the model, cannot be used; standard error says why"},
    )
)
def transcribe(
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE", help="Audio files (WAV, FLAC, Ogg, MP3) of any rate; - reads standard input."
        ),
    ],
    model: Annotated[
        Optional[str],
        typer.Option(
            "--model",
            "-m",
            help="Model file, directory of a checkpoint, or NAME for models/NAME.bin or a known model, which is "
            "fetched when it is not here yet ('qwen3asr models' lists them). Without it: the built-in mini model.",
        ),
    ] = None,
    dtype: Annotated[
        Optional[str],
        typer.Option(
            help="Type to load the directory of a checkpoint as: q8_0, q4_0, q4_1, q4_k or f16; default: q8_0."
        ),
    ] = None,
    language: Annotated[
        Optional[str],
        typer.Option("--language", "-l", help="Force a language by its English name; default: detect."),
    ] = None,
    context: Annotated[str, typer.Option(help="Text that helps recognition: names, terms, the topic.")] = "",
    script: Annotated[
        Optional[str],
        typer.Option(help="Chinese script to write: zh-TW, or an OpenCC configuration such as s2t."),
    ] = None,
    itn: Annotated[bool, typer.Option("--itn", help="Write spoken Chinese numbers as digits.")] = False,
    threads: Annotated[
        Optional[int],
        typer.Option(
            "--threads",
            "-t",
            min=1,
            envvar="INFERENCE_THREADS",
            help="Threads to compute with; default: all processors.",
        ),
    ] = None,
    context_length: Annotated[
        Optional[int],
        typer.Option(min=1, envvar="CONTEXT_LENGTH", help="Most tokens of prompt and answer together."),
    ] = None,
    timings: Annotated[
        bool, typer.Option("--timings", help="Print the time of each stage on standard error.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object for each file, on a line.")
    ] = False,
    max_new_tokens: Annotated[
        Optional[int], typer.Option(min=1, help="Limit of tokens; default: from the length of the audio.")
    ] = None,
    chunk_seconds: Annotated[
        float, typer.Option(min=1, max=1200, help="Cut longer audio near this length, where it is quiet.")
    ] = 1200.0,
    kernels: Annotated[
        Optional[str], typer.Option(help="Kernel set, as --version lists them; default: the best one.")
    ] = None,
    library: Annotated[
        Optional[str],
        typer.Option(help="Another build of chatllm.cpp's library to use instead of the built-in engine."),
    ] = None,
) -> None:
    """Print what is said in audio files, while it is being recognized.

    A file that cannot be read is reported, the others still run. Ctrl-C prints what there is.
    """
    from ..model import Model

    try:
        with Model(
            model,
            dtype=dtype,
            threads=threads,
            kernels=kernels,
            library=library,
            context_length=context_length,
        ) as opened:

            def begin(file: str) -> "Stream":
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
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    if not all(good):
        raise typer.Exit(1)


def _transcribe_file(
    file: str, begin: "Callable[[str], Stream]", named: bool, as_json: bool, whole: bool, timings: bool
) -> bool:
    """Prints one transcription; False, and a sentence on standard error, when it fails."""
    if named and not as_json:
        _note(f"{file}:")
    try:
        stream = begin(file)
        transcript = _print_json(stream, file) if as_json else _print_text(stream, whole)
    except (ArgumentError, LanguageError):
        raise  # no file can do better
    except Qwen3AsrError as error:
        _report(error)
        if as_json:
            _print_line(json.dumps({"file": file, "error": str(error)}, ensure_ascii=False))
        return False
    if timings:
        _print_timings(transcript.timings)
    return True


def _print_text(stream: "Stream", whole: bool) -> "Transcript":
    """Prints the text as it comes, or whole at the end; after Ctrl-C what there is."""
    with stream:
        try:
            for token in stream:
                if not whole:
                    print(token.text, end="", flush=True)
        finally:
            stream.close()
            _print_line(stream.transcript.text if whole and stream.has_transcript else "")
    return stream.transcript


def _print_json(stream: "Stream", file: str) -> "Transcript":
    try:
        with stream:
            stream.finish()
    finally:
        if stream.has_transcript:
            _print_line(json.dumps({"file": file, **stream.transcript.to_dict()}, ensure_ascii=False))
    return stream.transcript


def _print_line(text: str) -> None:
    print(text, flush=True)


@app.command(epilog=epilog.closing("qwen3asr info models/qwen3-asr-0.6b-q4_0.bin", "qwen3asr info --json"))
def info(
    model: Annotated[
        Optional[str],
        typer.Argument(
            metavar="MODEL",
            help="Model file, or NAME for models/NAME.bin. Without it: the built-in mini model.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the description as JSON.")] = False,
) -> None:
    """Print what is in a model file, from its header."""
    from ..engine import inspect_model
    from ..files import hub

    path = hub.resolve(model)
    description = inspect_model(path)
    if as_json:
        print(json.dumps(description, ensure_ascii=False))
        return
    _print_table({"file": os.fspath(path), **description})


@app.command(
    epilog=epilog.closing(
        "echo 零九零零零七三三三一 | qwen3asr itn    # 0900073331", "qwen3asr itn < talk.txt"
    )
)
def itn() -> None:
    """Write the spoken Chinese numbers of standard input as digits, line by line."""
    from ..text.itn.__main__ import main as run

    raise typer.Exit(run())


models.register(app)
lab.register(app)


def _note(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def _report(error: BaseException) -> None:
    _note(f"qwen3asr: {error}")


def _print_timings(timings: "Timings") -> None:
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
    _print_table({name: value for name, value in rows.items() if value is not None}, error=True)


def _milliseconds(value: Optional[float]) -> Optional[str]:
    return None if value is None else f"{value:.1f} ms"


def _print_table(rows: dict[str, Any], error: bool = False) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows.items():
        shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        table.add_row(Text(name.replace("_", " ")), Text(shown))
    Console(stderr=error, highlight=False).print(table)


def main() -> None:
    """Entry point: an error is one sentence."""
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(
                encoding="utf-8", errors="replace" if stream is sys.stdin else "backslashreplace"
            )
    try:
        app()
    except Qwen3AsrError as error:
        _report(error)
        sys.exit(1)


if __name__ == "__main__":
    main()
