"""The command ``qwen3asr live``."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import AudioError, Qwen3AsrError
from . import command, epilog, signals
from .command import argument, option
from .terminal import print_json, print_line

if TYPE_CHECKING:
    from ..live import Live, Update
    from ..transcript import Segment

_BLOCK_SECONDS = 0.1


@command.command(
    epilog=epilog.closing(
        "qwen3asr live                                               # the microphone, until Ctrl-C",
        "qwen3asr live --script zh-TW --itn talk.wav --realtime       # a file, as fast as it was spoken",
        "arecord -q -f S16_LE -r 16000 -t raw | qwen3asr live -       # raw samples from another program",
        "qwen3asr live --json talk.wav > updates.jsonl",
        "qwen3asr live --output talk.srt                             # subtitles that grow with each utterance",
    )
)
@argument(
    "source",
    metavar="[FILE]",
    required=False,
    help="Audio file; - reads raw 16-bit mono samples from standard input. Without it: the microphone.",
)
@command.model
@option(
    "--language",
    "-l",
    help="Force a language by its English name or code (Chinese, zh, zh-TW, en); default: detect.",
)
@option(
    "--context", default="", show_default=False, help="Text that helps recognition: names, terms, the topic."
)
@option("--script", help="Chinese script to write: zh-TW, or an OpenCC configuration such as s2t.")
@option("--itn", is_flag=True, help="Write spoken Chinese numbers as digits.")
@command.threads
@command.kernels
@option(
    "--chunk",
    type=click.FloatRange(0.2, 10),
    metavar="SECONDS",
    default=1.0,
    help="New audio from one hypothesis to the next.",
)
@option("--rate", type=click.IntRange(1000, 384000), metavar="HZ", default=16000, help="Rate of raw samples.")
@option("--device", help="Microphone: a number or a part of its name, as sounddevice knows it.")
@option("--realtime", is_flag=True, help="Read the file as fast as it was spoken, not as fast as possible.")
@option("--json", "as_json", is_flag=True, help="Print each update as a JSON object, on a line.")
@option(
    "--output",
    "-o",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write the utterances that have ended to this file, too, whose suffix says how: .srt, .vtt, .txt, .tsv, .lrc. It is "
    "complete at every moment.",
)
@option("--overwrite", is_flag=True, help="Replace an output that exists.")
def live(
    source: str | None,
    model: str | None,
    language: str | None,
    context: str,
    script: str | None,
    itn: bool,
    threads: int | None,
    kernels: str | None,
    chunk: float,
    rate: int,
    device: str | None,
    realtime: bool,
    as_json: bool,
    output: Path | None,
    overwrite: bool,
) -> None:
    """Print what is said while it is being said.

    Each utterance becomes a line when it has ended; on a terminal the line is there before, dimmed where it may still
    change. Ctrl-C, or the end of the audio, prints the rest.
    """
    from ..model import Model

    growing = None if output is None else _Growing(output, overwrite)
    with Model(model, threads=threads, kernels=kernels) as opened:
        session = opened.live(language, context=context, chunk=chunk, script=script, itn=itn)
        feeder = _Feeder(session, lambda: _blocks(source, rate, device, realtime))
        show = _print_updates if as_json else _show_on_terminal if sys.stdout.isatty() else _print_utterances
        try:
            with signals.stopping(feeder.stop):
                show(session if growing is None else growing.followed(session))
        finally:
            feeder.stop()
            if growing is not None:
                growing.write(session)
        if signals.caught() is not None:
            raise signals.Interrupted
        feeder.raise_failure()


class _Growing:
    """A file with the utterances that have ended, written anew, as a whole, after each."""

    def __init__(self, path: Path, overwrite: bool) -> None:
        from ..files.output import OutputError, target
        from ..subtitles import WRITERS

        kind = path.suffix[1:].lower()
        if kind not in WRITERS:
            known = ", ".join(f".{name}" for name in WRITERS)
            raise click.UsageError(f"'{path}' names no format: give --output a file that ends in {known}")
        if not overwrite and target(path).exists():
            raise OutputError(f"'{path}' exists already; --overwrite replaces it")
        self._path, self._render, self._count = path, WRITERS[kind], -1
        self._is_new = not target(path).exists()
        self._put([])  # what cannot be written is said before anybody speaks

    def _put(self, segments: list[Segment]) -> None:
        from ..files.output import OutputError, replace

        if len(segments) == self._count:
            return
        try:
            replace(self._path, self._render(segments))
        except OutputError:
            if self._is_new and self._count == 0:  # nothing was said in it
                self._path.unlink(missing_ok=True)
            raise
        self._count = len(segments)

    def write(self, session: Live) -> None:
        self._put(session.segments)

    def followed(self, session: Live) -> Iterator[Update]:
        for update in session:
            self.write(session)
            yield update


class _Feeder:
    """A thread that reads audio into a session, and finishes it at the end of the audio."""

    def __init__(self, session: Live, blocks: Callable[[], Iterator[tuple[Any, int]]]) -> None:
        self._session, self._blocks = session, blocks
        self._stopping = threading.Event()
        self._failure: Exception | None = None
        threading.Thread(target=self._feed, name="qwen3asr audio", daemon=True).start()

    def _feed(self) -> None:
        try:
            for samples, rate in self._blocks():
                if self._stopping.is_set():
                    return
                self._session.feed(samples, rate)
        except Exception as error:
            self._failure = None if self._stopping.is_set() else error
        finally:
            self.stop()

    def stop(self) -> None:
        """No more audio is read; what was read is recognized, and the updates end with it."""
        self._stopping.set()
        with suppress(Qwen3AsrError):  # who reads the updates gets it
            self._session.finish()

    def raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure


def _blocks(source: str | None, rate: int, device: str | None, realtime: bool) -> Iterator[tuple[Any, int]]:
    if source is None:
        return _microphone(device)
    if source == "-":
        return _raw(sys.stdin.buffer, rate)
    return _paced(_file(source)) if realtime else _file(source)


def _raw(stream: Any, rate: int) -> Iterator[tuple[Any, int]]:
    """16-bit samples as they come; a half one at the end is dropped."""
    size, rest = 2 * int(rate * _BLOCK_SECONDS), b""
    while block := stream.read1(size):
        block, rest = rest + block, b""
        if len(block) % 2:
            block, rest = block[:-1], block[-1:]
        yield block, rate


def _file(path: str) -> Iterator[tuple[Any, int]]:
    from ..audio import SAMPLE_RATE, pieces

    for piece in pieces(path, None, 1.0):
        for begin in range(0, len(piece.pcm), int(_BLOCK_SECONDS * SAMPLE_RATE)):
            yield piece.pcm[begin : begin + int(_BLOCK_SECONDS * SAMPLE_RATE)], SAMPLE_RATE


def _paced(blocks: Iterator[tuple[Any, int]]) -> Iterator[tuple[Any, int]]:
    """As fast as it was spoken."""
    due = time.monotonic()
    for samples, rate in blocks:
        due += len(samples) / rate
        time.sleep(max(0.0, due - time.monotonic()))
        yield samples, rate


def _microphone(device: str | None) -> Iterator[tuple[Any, int]]:
    from ..audio import SAMPLE_RATE

    try:
        import sounddevice
    except ImportError:
        raise AudioError(
            'the microphone needs the package sounddevice: pip install "qwen3asr-native[live]"; or give a file, or - '
            "for raw samples on standard input"
        ) from None
    except OSError as error:  # it is there, but not the library below it
        raise AudioError(f"the microphone cannot be used: {error}") from None
    chosen: int | str | None = int(device) if device is not None and device.isdigit() else device
    try:
        with sounddevice.InputStream(SAMPLE_RATE, 0, chosen, channels=1, dtype="int16") as microphone:
            while True:
                samples, _overflowed = microphone.read(int(_BLOCK_SECONDS * SAMPLE_RATE))
                yield samples[:, 0], SAMPLE_RATE
    except (sounddevice.PortAudioError, ValueError) as error:
        raise AudioError(f"the microphone cannot be read: {error}") from None


def _print_updates(updates: Iterable[Update]) -> None:
    for update in updates:
        print_json(asdict(update))


def _print_utterances(updates: Iterable[Update]) -> None:
    for text, _tail in _utterances(updates):
        if text:
            print_line(text)


def _show_on_terminal(updates: Iterable[Update]) -> None:
    """The utterance that goes on in its place, what may change dimmed; above it those that have ended."""
    from rich.console import Console
    from rich.live import Live as Display
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=True)
    with Display(console=console, refresh_per_second=10, transient=True) as display:
        for text, tail in _utterances(updates):
            if text:
                console.print(Text(text))
            display.update(Text(tail, style="dim"))


def _utterances(updates: Iterable[Update]) -> Iterator[tuple[str, str]]:
    """For each update: what has become stable by it, and the tail."""
    length = 0
    for update in updates:
        text, length = update.stable[length:].strip(), len(update.stable)
        yield text, update.tail
