"""The benchmark: the time of each stage, memory and error rates over repeated transcriptions.

>>> from qwen3asr_native import bench
>>> report = bench.run(["speech.wav"], references={"speech.wav": "what is said"}, iterations=10)
>>> report.summary["real_time_factor"]["median"]

All times are the engine's own, read where the work is done; Python's delays are not in them. The time to the first token
counts from the moment the engine gets the audio. Decoding speed is the characters after the first token over the time of
the decode steps, which is all the time after the first token.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from .. import audio as audio_input
from ..errors import ArgumentError, AudioError
from ..files import hub
from ..model import Model
from .measure import MemoryMeter, extra, machine, model_file, spread, versions
from .scoring import ErrorRates, error_rates

if TYPE_CHECKING:
    from ..audio import Pcm
    from ..transcript import Token, Transcript

SUMMARIZED = (
    "load_ms",
    "mel_ms",
    "encode_ms",
    "prefill_ms",
    "first_token_ms",
    "first_text_ms",
    "per_token_ms",
    "decode_ms",
    "total_ms",
    "characters_per_second",
    "real_time_factor",
    "rss",
    "uss",
    "peak_rss",
    "cer",
    "wer",
    "cer_normalized",
    "wer_normalized",
)


@dataclass(frozen=True)
class Iteration:
    """One measured transcription. Milliseconds and bytes; None where the library or the system does not tell.

    Attributes:
        number: From 1.
        file: The audio file.
        audio_ms: Its length.
        load_ms: The load of the model before it; None when that was measured with an earlier iteration.
        mel_ms: Log-mel spectrogram.
        encode_ms: Audio encoder.
        prefill_ms: Decoder over the prompt.
        first_token_ms: From the audio's arrival to the first token, whatever it is.
        first_text_ms: To the first token that adds to the recognized text.
        per_token_ms: Mean of the decode steps after the first token.
        decode_ms: Their sum.
        total_ms: From the audio's arrival to the end.
        token_ms: When each token was made.
        audio_tokens: Tokens that stand for the audio in the prompt.
        prompt_tokens: Tokens of the prompt, audio included.
        new_tokens: Tokens of the answer.
        characters_per_second: Characters that the tokens after the first one added, over ``decode_ms``.
        real_time_factor: ``total_ms`` over ``audio_ms``.
        rss, uss, peak_rss: Memory after it, see ``qwen3asr_native._measure.Memory``.
        language: Language of the answer.
        text: Final text.
        finish: How it ended.
        errors: Error rates of the text; None without a reference.
    """

    number: int
    file: str
    audio_ms: float
    load_ms: float | None
    mel_ms: float | None
    encode_ms: float | None
    prefill_ms: float | None
    first_token_ms: float | None
    first_text_ms: float | None
    per_token_ms: float | None
    decode_ms: float | None
    total_ms: float
    token_ms: tuple[float, ...]
    audio_tokens: int | None
    prompt_tokens: int | None
    new_tokens: int
    characters_per_second: float | None
    real_time_factor: float
    rss: int
    uss: int | None
    peak_rss: int | None
    language: str
    text: str
    finish: str | None
    errors: ErrorRates | None

    def value(self, name: str) -> float | None:
        """A quantity of ``SUMMARIZED``."""
        holder = self.errors if name.startswith(("cer", "wer")) else self
        value: float | None = getattr(holder, name, None)
        return value


@dataclass
class Report:
    """What a benchmark measured."""

    settings: dict[str, Any]
    machine: dict[str, Any]
    versions: dict[str, str]
    model: dict[str, Any]
    iterations: list[Iteration] = field(default_factory=list)
    roofline: dict[str, Any] | None = None
    interrupted: bool = False

    @property
    def summary(self) -> dict[str, dict[str, float] | None]:
        """Median, p10, p90, smallest, largest and number of values of each quantity, over all iterations."""
        return _summary(self.iterations)

    @property
    def files(self) -> dict[str, dict[str, dict[str, float] | None]]:
        """The summary of each file."""
        names = dict.fromkeys(iteration.file for iteration in self.iterations)
        return {name: _summary([i for i in self.iterations if i.file == name]) for name in names}

    def to_dict(self) -> dict[str, Any]:
        return {
            "settings": self.settings,
            "machine": self.machine,
            "versions": self.versions,
            "model": self.model,
            "iterations": [asdict(iteration) for iteration in self.iterations],
            "summary": self.summary,
            "files": self.files,
            "roofline": self.roofline,
            "interrupted": self.interrupted,
        }


def _summary(iterations: Sequence[Iteration]) -> dict[str, dict[str, float] | None]:
    found = {name: spread([iteration.value(name) for iteration in iterations]) for name in SUMMARIZED}
    return {name: values._asdict() if values else None for name, values in found.items()}


class Settings(NamedTuple):
    """How to transcribe; see ``qwen3asr_native.Model.transcribe`` and ``qwen3asr_native.Model``.

    reload: Load the model anew for each iteration, so that the time of loading has a spread too.
    """

    threads: int | None = None
    context_length: int | None = None
    kernels: str | None = None
    library: str | None = None
    language: str | None = None
    context: str = ""
    script: str | None = None
    itn: bool = False
    max_new_tokens: int | None = None
    reload: bool = False


def run(
    files: Sequence[str | os.PathLike[str]],
    model: str | os.PathLike[str] | None = None,
    *,
    references: Mapping[str, str] | None = None,
    iterations: int = 10,
    warmup: int = 1,
    roofline: bool = False,
    settings: Settings | None = None,
    progress: Callable[[str, int], None] | None = None,
) -> Report:
    """Transcribes each file again and again, and measures.

    Args:
        files: Audio files; each iteration takes all of them in turn.
        model: As for ``qwen3asr_native.Model``.
        references: What is said in a file, by the file as it was given; others have no error rates.
        iterations: How often.
        warmup: Iterations before them that are not measured.
        roofline: Measure the machine's peaks too, and say what share of them the stages reach.
        settings: How to transcribe.
        progress: Called with a title and the number of transcriptions done.

    After Ctrl-C the report has what was measured so far.

    Raises:
        ArgumentError: An option has a value that it cannot have, or a library of the extra ``bench`` is missing.
        ModelFileError, AudioError, LanguageError: As for a transcription.
    """
    settings = settings or Settings()
    if iterations < 1 or warmup < 0:
        raise ArgumentError(
            f"a benchmark needs at least 1 iteration and 0 of warm-up, not {iterations} and {warmup}"
        )
    if not files:
        raise ArgumentError("name at least one audio file to measure with")
    if roofline and settings.library is not None:
        raise ArgumentError(
            "shares of the machine's limits are for the built-in engine; leave out the library"
        )
    if references:
        extra("jiwer")
    path = hub.resolve(model)
    clips = {os.fspath(file): read_clip(file) for file in files}
    report = Report(
        settings={**settings._asdict(), "iterations": iterations, "warmup": warmup, "files": list(clips)},
        machine=machine(),
        versions=versions(),
        model=model_file(path),
    )
    bench = _Bench(path, clips, references or {}, settings, report)
    try:
        bench.measure(iterations, warmup, progress or (lambda title, done: None))
        if roofline:
            report.roofline = _roofline(path, report)
    except KeyboardInterrupt:
        report.interrupted = True
    finally:
        bench.close()
    return report


def read_clip(file: str | os.PathLike[str]) -> Pcm:
    """The samples of a file, in memory before anything is measured."""
    pcm = audio_input.load(file)
    seconds = len(pcm) / audio_input.SAMPLE_RATE
    if seconds > audio_input.MAX_SECONDS:
        raise AudioError(
            f"'{os.fspath(file)}' is {seconds:.0f} s long; a benchmark takes up to {audio_input.MAX_SECONDS:.0f} s, "
            "which are recognized in one go"
        )
    return pcm


class _Bench:
    """A model, the clips, and the report that they fill."""

    def __init__(
        self,
        path: Path,
        clips: Mapping[str, Pcm],
        references: Mapping[str, str],
        settings: Settings,
        report: Report,
    ) -> None:
        self._path, self._clips, self._references = path, clips, references
        self._settings, self._report = settings, report
        self._meter = MemoryMeter()
        self._model: Model | None = None
        self._load_is_new = False

    def measure(self, iterations: int, warmup: int, progress: Callable[[str, int], None]) -> None:
        done = 0
        for number in range(1 - warmup, iterations + 1):
            model = self._loaded()
            for file, pcm in self._clips.items():
                progress(f"iteration {number}" if number > 0 else "warm-up", done)
                transcript = self._transcribe(model, pcm)
                done += 1
                if number > 0:
                    self._report.iterations.append(self._iteration(number, file, transcript))

    def close(self) -> None:
        if self._model is not None:
            self._model.close()

    def _loaded(self) -> Model:
        settings = self._settings
        if self._model is None:
            self._model = Model(
                self._path,
                threads=settings.threads,
                kernels=settings.kernels,
                library=settings.library,
                context_length=settings.context_length,
            )
            self._report.model["info"] = self._model.info
            self._load_is_new = True
        elif settings.reload:
            self._model.reinit()
            self._load_is_new = True
        return self._model

    def _transcribe(self, model: Model, pcm: Pcm) -> Transcript:
        settings = self._settings
        return model.transcribe(
            pcm,
            settings.language,
            context=settings.context,
            script=settings.script,
            itn=settings.itn,
            max_new_tokens=settings.max_new_tokens,
            sample_rate=audio_input.SAMPLE_RATE,
        )

    def _iteration(self, number: int, file: str, transcript: Transcript) -> Iteration:
        timings, memory = transcript.timings, self._meter.sample()
        reference = self._references.get(file)
        load_ms = timings.load_ms if self._load_is_new else None
        self._load_is_new = False
        return Iteration(
            number=number,
            file=file,
            audio_ms=timings.audio_ms,
            load_ms=load_ms,
            mel_ms=timings.mel_ms,
            encode_ms=timings.encode_ms,
            prefill_ms=timings.prefill_ms,
            first_token_ms=timings.first_token_ms,
            first_text_ms=next((token.elapsed_ms for token in transcript.tokens if token.text), None),
            per_token_ms=timings.per_token_ms,
            decode_ms=timings.decode_ms,
            total_ms=timings.total_ms,
            token_ms=tuple(token.elapsed_ms for token in transcript.tokens),
            audio_tokens=timings.audio_tokens,
            prompt_tokens=timings.prompt_tokens,
            new_tokens=timings.new_tokens,
            characters_per_second=_characters_per_second(transcript.tokens, timings.decode_ms),
            real_time_factor=timings.real_time_factor,
            rss=memory.rss,
            uss=memory.uss,
            peak_rss=memory.peak_rss,
            language=transcript.language,
            text=transcript.text,
            finish=transcript.finish,
            errors=None if reference is None else error_rates(transcript.text, reference),
        )


def _characters_per_second(tokens: Sequence[Token], decode_ms: float | None) -> float | None:
    if not decode_ms or len(tokens) < 2:
        return None
    return sum(len(token.text) for token in tokens[1:]) / (decode_ms / 1e3)


def _roofline(path: Path, report: Report) -> dict[str, Any]:
    from ..engine import measure_machine
    from .roofline import shares, work_of

    info = report.model["info"]
    peaks = measure_machine(kernels=report.settings["kernels"], threads=int(info["threads"]))
    return shares(work_of(path, int(info["mel_bins"])), peaks, report.iterations)


def read_references(files: Iterable[str], table: str | os.PathLike[str] | None) -> dict[str, str]:
    """The reference texts of files: from a table of lines ``file<TAB>text``, else from a ``.txt`` file beside each.

    A file of the table is looked up as it is written there, or by its name alone.

    Raises:
        ArgumentError: The table cannot be read, or a line has no tab.
    """
    listed = _read_table(Path(table)) if table is not None else {}
    found = {}
    for file in files:
        path = Path(file)
        beside = path.with_suffix(".txt")
        text = listed.get(file, listed.get(path.name))
        if text is None and beside.is_file():
            text = _read_text(beside)
        if text is not None:
            found[file] = text.strip()
    return found


def _read_table(path: Path) -> dict[str, str]:
    listed = {}
    for number, line in enumerate(_read_text(path).splitlines(), 1):
        if line.strip():
            file, tab, text = line.partition("\t")
            if not tab:
                raise ArgumentError(f"line {number} of '{path}' has no tab between the file and its text")
            listed[file.strip()] = text
    return listed


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ArgumentError(f"the reference '{path}' cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ArgumentError(f"the reference '{path}' is not UTF-8 text; save it as UTF-8") from None
