"""The command ``qwen3asr transcribe``."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .. import __version__
from ..audio import PIECE_SECONDS
from ..errors import ArgumentError, AudioError, LanguageError, Qwen3AsrError
from ..job import FORMATS, Job, Recording, Source, find_sources, fingerprint, plan, render
from ..segment import MODES
from ..voice import check_version
from . import command, epilog, signals
from .command import argument, option
from .progress import run_job
from .terminal import note, print_json, print_table, print_text, report, safe

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..model import Model
    from ..stream import Stream
    from ..transcript import Segment, Timings, Transcript


@command.command(
    epilog=epilog.closing(
        "qwen3asr transcribe talk.wav",
        "qwen3asr transcribe --model models/qwen3-asr-0.6b-q4_0.bin --script zh-TW --itn talk.mp3",
        "qwen3asr transcribe --language English --context 'PostgreSQL, Taipei' --timings talk.flac",
        "qwen3asr transcribe --json *.wav > talks.jsonl",
        "qwen3asr transcribe --words --aligner qwen3-forced-aligner-0.6b-q8_0 --format srt talk.mp4",
        "qwen3asr transcribe --recursive --format txt,srt --output-dir texts --resume recordings",
        "qwen3asr transcribe - < talk.ogg",
        statuses={"1": "at least one file, or the model, cannot be used; standard error says why"},
    )
)
@argument(
    "files",
    metavar="FILE...",
    nargs=-1,
    required=True,
    help="Audio files (WAV, FLAC, Ogg, MP3) of any rate, patterns such as 'talks/*.mp3', folders with --recursive; - reads "
    "standard input.",
)
@command.model
@option(
    "--dtype",
    metavar="TYPE",
    help="Type to load the directory of a checkpoint as: q8_0, q4_0, q4_1, q4_k or f16; default: q8_0.",
)
@option(
    "--language",
    "-l",
    help="Force a language by its English name or code (Chinese, zh, zh-TW, en); default: detect.",
)
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
@option(
    "--words",
    is_flag=True,
    help="Tell when each word is said: in JSON, and as the times of subtitles.",
)
@option(
    "--aligner",
    "-a",
    metavar="MODEL",
    help="Forced aligner for --words: model file, directory of a checkpoint, or a name that 'qwen3asr models' lists. "
    "With the built-in model: the built-in mini aligner.",
)
@option("--timings", is_flag=True, help="Print the time of each stage on standard error.")
@option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print one JSON object for each file, on a line, with tokens and times.",
)
@option(
    "--format",
    "-f",
    "formats",
    multiple=True,
    metavar="FORMAT",
    help=f"What to write: {', '.join(FORMATS)}; several by commas or repeated. Default: by the suffix of --output, or txt.",
)
@option("--output", "-o", metavar="FILE", help="File to write to, in place of standard output.")
@option("--output-dir", "-d", metavar="DIR", help="Folder to write to: a file for each recording and format.")
@option("--overwrite", is_flag=True, help="Replace outputs that exist.")
@option(
    "--resume",
    is_flag=True,
    help="Go on where an earlier run of the same command ended, and keep the outputs that are whole.",
)
@option("--recursive", "-r", is_flag=True, help="Take the recordings in folders, and in the folders in them.")
@option("--no-names", is_flag=True, help="With several files: do not begin each line with the file's name.")
@command.count("--max-new-tokens", help="Limit of tokens; default: from the length of the audio.")
@option(
    "--segments",
    type=click.Choice(MODES),
    default="auto",
    help="How longer audio is cut: at pauses between speech, without silence (auto, and voice also in short audio), at the "
    "quietest place near the limit, or at the limit.",
)
@option(
    "--chunk-seconds",
    type=click.FloatRange(1, 1200),
    metavar="SECONDS",
    default=PIECE_SECONDS,
    help="Cut longer audio; no segment is longer than this.",
)
@command.count(
    "--carry",
    least=0,
    default=0,
    help="Characters of the text before a segment that go to it as context, too; at most 1000.",
)
@option(
    "--channel",
    type=click.Choice(["mix", "left", "right"]),
    default="mix",
    help="Which channels to hear: the mean of all, or one.",
)
@command.count("--track", help="Audio track of a media file; default: the first or best.")
@option("--raw", metavar="FORMAT", help="Files hold samples without a header: s16le, f32le:2 and the like.")
@option(
    "--rate", type=click.IntRange(1000, 1_000_000), metavar="HZ", help="Sample rate of --raw.", default=None
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
    words: bool,
    aligner: str | None,
    timings: bool,
    as_json: bool,
    formats: tuple[str, ...],
    output: str | None,
    output_dir: str | None,
    overwrite: bool,
    resume: bool,
    recursive: bool,
    no_names: bool,
    max_new_tokens: int | None,
    segments: str,
    chunk_seconds: float,
    carry: int,
    channel: str,
    track: int | None,
    raw: str | None,
    rate: int | None,
    kernels: str | None,
    library: str | None,
) -> None:
    """Print what is said in audio files, while it is being recognized, or write it to files.

    A file that cannot be read is reported, the others still run. Ctrl-C prints what there is. With several files a line
    begins with the file's name and a tab.

    With --output or --output-dir, files are written as segments are finished, and are complete at every moment. A journal
    beside them keeps what is done: after a crash or Ctrl-C, the same command with --resume goes on from there.
    """
    wanted = [name for value in formats for name in value.lower().split(",") if name]
    in_files = output is not None or output_dir is not None
    _check_combination(in_files, as_json, wanted, overwrite or resume, timings)
    _check_words(words, aligner, model, as_json, wanted, output)
    sources, good = _sources(files, recursive)
    if not sources:
        raise click.exceptions.Exit(1)
    targets = plan(sources, wanted, output, output_dir) if in_files else []
    from ..aligner import Aligner
    from ..assembly import join
    from ..model import Model

    options: dict[str, Any] = {
        "language": language,
        "context": context,
        "script": script,
        "itn": itn,
        "max_new_tokens": max_new_tokens,
        "segments": segments,
        "chunk_seconds": chunk_seconds,
        "carry": carry,
        "channel": channel,
        "track": track,
        "raw": raw,
        "sample_rate": rate,
        "words": words,
    }
    threads = _sensible_threads(threads)
    loaded = Aligner(aligner, threads=threads, kernels=kernels, lazy=True) if words else None
    opened = Model(
        model,
        dtype=dtype,
        threads=threads,
        kernels=kernels,
        library=library,
        context_length=context_length,
    )

    def begin(source: Source, known: Sequence[Segment] = ()) -> Stream:
        audio = _standard_input() if source.is_standard_input else source.name
        before = join([segment.text for segment in known])
        return opened.stream(audio, skip=len(known), before=before, aligner=loaded, **options)

    try:
        if in_files:
            identity = {**options, **_identity(opened), "library": library}
            if loaded is not None:
                identity["aligner"] = fingerprint(loaded.path)
            job = Job(
                targets,
                begin,
                identity,
                resume=resume,
                overwrite=overwrite,
                ahead=0 if library else 7,
            )
            good = run_job(job, sources) and good
        else:
            printer = Printer(
                wanted[0] if wanted else None, as_json, len(sources) > 1 and not no_names, itn, timings
            )
            for source in sources:
                good = printer.transcribe(source, begin) and good
    finally:
        with signals.holding():
            opened.close()
            if loaded is not None:
                loaded.close()
    if not good:
        raise click.exceptions.Exit(1)


def _check_combination(in_files: bool, as_json: bool, formats: list[str], again: bool, timings: bool) -> None:
    if as_json and (formats or in_files):
        raise click.UsageError(
            "--json prints; to write files, or without tokens and times, use --format json"
        )
    if in_files and timings:
        raise click.UsageError("--timings goes with text that is printed; the summary says how fast it was")
    if not in_files and again:
        raise click.UsageError("--resume and --overwrite are about files; give --output or --output-dir")
    if not in_files and len(formats) > 1:
        raise click.UsageError("several formats are written to files; give --output-dir")


def _check_words(
    words: bool,
    aligner: str | None,
    model: str | None,
    as_json: bool,
    formats: list[str],
    output: str | None,
) -> None:
    if words:
        from ..files import hub

        try:
            hub.check_aligner(model, aligner)
        except ArgumentError as error:
            raise click.UsageError(str(error)) from None
    if aligner is not None and not words:
        raise click.UsageError("--aligner is for --words")
    kinds = set(formats) or {Path(output or "").suffix[1:].lower()}
    if words and not as_json and not kinds - {"", "txt", "tsv"}:
        raise click.UsageError(
            "the times of words are told in JSON and subtitles; give --json, or --format srt, vtt, lrc or json"
        )


def _sources(names: tuple[str, ...], recursive: bool) -> tuple[list[Source], bool]:
    """The recordings; False when there is something else among the names, which is said."""
    sources, good = [], True
    for source, sentence in find_sources(names, recursive):
        if source is not None:
            sources.append(source)
        else:
            note(f"qwen3asr: {sentence}")
            good = False
    return sources, good


def _identity(model: Model) -> dict[str, Any]:
    """What tells two models, or two ways to compute, apart."""
    info = model.info
    return {
        "package": __version__,
        "model": fingerprint(info["path"]) if "path" in info else None,
        "kernels": info.get("kernels"),
        "context_length": info.get("context_length"),
        "speech_check": check_version(),
    }


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


class Printer:
    """Prints recordings on standard output, one after the other."""

    def __init__(self, kind: str | None, as_json: bool, named: bool, whole: bool, timings: bool) -> None:
        self._kind, self._as_json, self._named, self._whole, self._timings = (
            kind,
            as_json,
            named,
            whole,
            timings,
        )

    def transcribe(self, source: Source, begin: Callable[[Source], Stream]) -> bool:
        """Prints one; False, and a sentence on standard error, when it fails."""
        try:
            stream = begin(source)
            with signals.stopping(stream.abort), stream:
                transcript = self._print(stream, source)
        except (ArgumentError, LanguageError):
            raise  # no file can do better
        except Qwen3AsrError as error:
            if signals.caught() is None:
                report(error)
            if self._as_json:
                print_json({**_named(source.name), "error": str(error)})
            return False
        if signals.caught() is not None:
            raise signals.Interrupted
        remark(source.name, transcript.segments, transcript.finish, transcript.notes)
        if self._timings:
            _print_timings(transcript.timings)
        return True

    def _print(self, stream: Stream, source: Source) -> Transcript:
        if self._as_json:
            return _print_json(stream, source.name)
        if self._kind is None:
            return _print_text(stream, source.name, self._named, self._whole)
        try:
            stream.finish()
        finally:
            stream.close()
            if stream.has_transcript:
                recording = Recording(source, list(stream.transcript.segments))
                print_text(render(str(self._kind), [recording], joint=self._named))
        return stream.transcript


#: How an answer ended that did not end by itself.
_ENDS = {
    "length": "the text is cut off: the limit of tokens, or the model's context, was reached",
    "loop": "the model repeated itself without end; the repetition was cut",
    "abort": "the text is cut off: recognition was stopped",
    "error": "the text is cut off: recognition failed",
}


def incomplete(segments: Sequence[Segment], finish: str | None) -> str | None:
    """What is wrong with a text whose segments did not all end by themselves; None when they did."""
    found = [segment for segment in segments if segment.finish in _ENDS]
    if finish in _ENDS and finish not in [segment.finish for segment in found]:
        return f"{_ENDS[finish]} ({finish})"
    if not found:
        return None
    first = found[0]
    where = f" at {first.start:.1f} s" if len(segments) > 1 else ""
    more = f", and {len(found) - 1} more" if len(found) > 1 else ""
    return f"{_ENDS[str(first.finish)]} ({first.finish}{where}{more})"


def remark(
    name: str, segments: Sequence[Segment], finish: str | None, notes: Sequence[str], error: bool = False
) -> None:
    """Says what a reader should know about a text, a line each."""
    for sentence in notes:
        note(f"qwen3asr: {sentence}" if name in sentence else f"qwen3asr: '{name}': {sentence}")
    said = None if error else incomplete(segments, finish)
    if said:
        note(f"qwen3asr: '{name}': {said}")


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
            complete = incomplete(transcript.segments, transcript.finish) is None
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
        "skipped silence": f"{timings.skipped_ms / 1000:.2f} s" if timings.skipped_ms else None,
        "segments heard twice": timings.retries or None,
        "real-time factor": f"{timings.real_time_factor:.3f}",
    }
    print_table({name: value for name, value in rows.items() if value is not None}, error=True)


def _milliseconds(value: float | None) -> str | None:
    return None if value is None else f"{value:.1f} ms"
