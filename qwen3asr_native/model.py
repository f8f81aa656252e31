"""The model: what users hold."""

from __future__ import annotations

import functools
import math
import os
import warnings
import weakref
from typing import TYPE_CHECKING, Any, TypeVar

from . import arguments, segment
from . import audio as audio_input
from .engine import ATTENTION, BATCH, MOST_BATCH, Engine, Holder, Options
from .errors import ArgumentError, Qwen3AsrError
from .files import hub
from .live import Live
from .many import transcribe_many
from .stream import Stream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from .aligner import Aligner
    from .audio import AudioSource
    from .live import Update
    from .transcript import Transcript

    Method = TypeVar("Method", bound=Callable[..., Any])


def _by_name(*names: str) -> Callable[[Method], Method]:
    """Options after audio and language once could be given by position, in the order of ``names``.

    They still can, with a DeprecationWarning.
    """

    def decorate(method: Method) -> Method:
        @functools.wraps(method)
        def call(self: Model, audio: Any, language: Any = None, *positional: Any, **options: Any) -> Any:
            if positional:
                warnings.warn(
                    f"options after audio and language must be given by name: {', '.join(names)}",
                    DeprecationWarning,
                    stacklevel=2,
                )
                options.update(zip(names, positional))
            return method(self, audio, language, **options)

        return call  # type: ignore[return-value]

    return decorate


# Of the text that is carried over nothing is known before; in UTF-8 no character has more bytes.
_WIDEST_CHARACTER = "\U0010ffff"


def _closing(
    aligner: Aligner, results: Iterator[Transcript | Qwen3AsrError]
) -> Iterator[Transcript | Qwen3AsrError]:
    with aligner:
        yield from results


class Model(Holder):
    """A Qwen3-ASR model, loaded.

    Threads may share it: the engine prepares their utterances in the order in which they came, and one decode step serves all
    that are being decoded. What is said of one utterance does not depend on the others. A forked child must load its
    own: ForkedError.

    Args:
        path_or_name: Path of a GGMM model file, a bare name for ``models/NAME.bin`` or for a known model (downloaded
            when it is not here yet), the directory of a Hugging Face checkpoint, or None for the built-in mini model
            (said once on standard error).
        dtype: Tensor type that a checkpoint directory is loaded as: "q8_0" (None), "q4_0", "q4_1", "q4_k", "f16". The
            quantized copy is a temporary file that lives as long as the object; to load it often, convert it once.
        threads: Threads to compute with; None takes the processors that the process may use.
        kernels: A name of ``kernel_sets``; None takes the best that the CPU can run. "generic" computes in float32.
        library: Path of another build of chatllm.cpp's C API to use instead of the engine that is compiled in. With
            only upstream's functions it gives text and times, but neither token ids nor log-probabilities, and audio
            goes through a temporary file.
        context_length: Most tokens of prompt and answer together; None takes the model's limit. Memory grows with what is
            used, not with the limit.
        batch: How many utterances, of any threads, are decoded together; fewer where memory is short. Others wait with
            their samples in memory.

    Raises:
        ModelFileError: The file is missing, damaged, not a model, or a forced aligner.
        DownloadError: The known model cannot be downloaded.
        ConversionError: The directory is not a complete checkpoint, or there is no room for its quantized copy.
        LibraryError: The library cannot be used.
        ArgumentError: An option has a value that it cannot have.
        OutOfMemoryError: The model does not fit into memory.
    """

    def __init__(
        self,
        path_or_name: str | os.PathLike[str] | None = None,
        *,
        dtype: str | None = None,
        threads: int | None = None,
        kernels: str | None = None,
        library: str | os.PathLike[str] | None = None,
        context_length: int | None = None,
        batch: int = BATCH,
    ) -> None:
        if path_or_name is not None:
            path_or_name = arguments.path(path_or_name, "the model")
            hub.check_transcribes(path_or_name)
        checkpoint = hub.checkpoint(path_or_name)
        if checkpoint is not None:
            self._path = hub.quantized_copy(checkpoint, dtype or "q8_0")
            weakref.finalize(self, hub.remove_copy, self._path, os.getpid())
        elif dtype is not None:
            raise ArgumentError("dtype is for checkpoint directories; model files are of one type already")
        else:
            self._path = hub.resolve(path_or_name)
        self._engine = Engine(
            self._path,
            threads=arguments.threads(threads),
            kernels=arguments.optional_text(kernels, "kernels"),
            library=None if library is None else arguments.path(library, "library"),
            context_length=arguments.optional_whole(context_length, "context_length"),
            batch=arguments.whole(batch, "batch", 1, MOST_BATCH),
        )
        if self._engine.info.get("purpose") == "ForcedAligner":
            self._engine.close()
            raise hub.does_not_transcribe(self._path)
        if path_or_name is None:
            hub.announce_built_in()

    def reinit(self) -> None:
        """Closes, if open, and loads again."""
        self._engine.reinit()

    def abort(self) -> None:
        """Stops all transcriptions of the model within one decode step; from any thread. Each ends with "abort"."""
        self._engine.abort()

    @_by_name("context", "script", "itn", "max_new_tokens")
    def transcribe(
        self,
        audio: AudioSource,
        language: str | None = None,
        *,
        context: str | Sequence[str] | None = "",
        script: str | None = None,
        itn: bool = False,
        max_new_tokens: int | None = None,
        sample_rate: int | None = None,
        channel: str = "mix",
        track: int | None = None,
        raw: str | None = None,
        attention: str = "window",
        segments: str = "auto",
        chunk_seconds: float = audio_input.PIECE_SECONDS,
        carry: int = 0,
        words: bool = False,
        aligner: Aligner | str | os.PathLike[str] | None = None,
    ) -> Transcript:
        """Recognizes speech.

        Args:
            audio: Path, encoded bytes, binary file object, array [n] or [n, channels] with ``sample_rate``, or a pair
                (array, sample rate); see ``qwen3asr_native.audio.load``.
            language: English name or ISO code of the language to force, in any case ("Chinese", "zh", "zh-TW"); None
                detects it.
            context: Text that helps recognition: names, terms, the topic; a list of words is joined by commas.
            script: Chinese script to write: "zh-TW" or the name of an OpenCC configuration such as "s2t"; None keeps the
                model's.
            itn: Write spoken Chinese numbers as digits.
            max_new_tokens: Limit of tokens for each piece; None derives one from the length of the audio.
            sample_rate: Hz, for arrays and with ``raw``.
            channel: "mix" averages all channels, "left" and "right" take one.
            track: Which audio track of a media file, from 1; None takes the first or best.
            raw: Bytes and files hold samples without a header: "s16le", "f32le" and the like, see ``audio.load``.
            attention: Encoder attention: "window" (8 s, as trained and as vLLM computes) or "full".
            segments: How longer audio is cut. "auto" and "voice" find speech, cut at pauses and leave out silence, which
                "voice" does in short audio, too; "quiet" cuts at the quietest 100 ms, "fixed" at the limit, and both
                keep everything. See ``segment.segments``.
            chunk_seconds: No segment is longer; segments are shorter where the context of the model asks for it. They
                are computed ahead of the reader.
            carry: Up to so many characters of the text before a segment go to it as context, too, at most 1000. Names
                stay the same, mistakes too; segments are computed one after the other then. 0 for none.
            words: Tell when each word is said: ``words`` of the segments and of the transcript. Segments are at most
                180 s long then; one whose words cannot be found stays without, and the transcript's notes tell why.
            aligner: What tells it, an ``Aligner`` or the path or name of one, which is loaded when the first segment
                needs it, and freed at the end of this call. None: the built-in one, for the built-in model only.

        Raises:
            AudioError: The audio is missing, empty, not audio, or holds NaN.
            LanguageError: The model does not know the language.
            ArgumentError: An option has a value that it cannot have.
            ContextLengthError: Audio and context do not fit the model.
            ModelClosedError, ForkedError: See the class.
        """
        with self._stream(
            audio,
            language,
            context=context,
            script=script,
            itn=itn,
            max_new_tokens=max_new_tokens,
            sample_rate=sample_rate,
            channel=channel,
            track=track,
            raw=raw,
            attention=attention,
            segments=segments,
            chunk_seconds=chunk_seconds,
            carry=carry,
            words=words,
            aligner=aligner,
        ) as stream:
            return stream.finish()

    @_by_name("context", "script", "itn", "max_new_tokens")
    def stream(
        self,
        audio: AudioSource,
        language: str | None = None,
        *,
        context: str | Sequence[str] | None = "",
        script: str | None = None,
        itn: bool = False,
        max_new_tokens: int | None = None,
        sample_rate: int | None = None,
        channel: str = "mix",
        track: int | None = None,
        raw: str | None = None,
        attention: str = "window",
        segments: str = "auto",
        chunk_seconds: float = audio_input.PIECE_SECONDS,
        carry: int = 0,
        words: bool = False,
        aligner: Aligner | str | os.PathLike[str] | None = None,
        skip: int = 0,
        before: str = "",
        max_audio_seconds: float | None = None,
    ) -> Stream:
        """Begins to recognize speech; iterate the result for the tokens, see ``Stream``.

        Arguments and errors as for ``transcribe``. ``itn`` shapes the transcript only: digits cannot be written
        before the number has ended. ``skip`` leaves out that many segments at the beginning, which an earlier call has
        recognized (the segments of the same audio are the same), and ``before`` is their text, for ``carry``.
        Audio longer than ``max_audio_seconds`` is an AudioTooLongError, and little more of it is read.
        """
        return self._stream(
            audio,
            language,
            context=context,
            script=script,
            itn=itn,
            max_new_tokens=max_new_tokens,
            sample_rate=sample_rate,
            channel=channel,
            track=track,
            raw=raw,
            attention=attention,
            segments=segments,
            chunk_seconds=chunk_seconds,
            carry=carry,
            words=words,
            aligner=aligner,
            skip=skip,
            before=before,
            max_audio_seconds=max_audio_seconds,
        )

    def _stream(
        self,
        audio: AudioSource,
        language: str | None,
        *,
        context: str | Sequence[str] | None,
        script: str | None,
        itn: bool,
        max_new_tokens: int | None,
        sample_rate: int | None,
        channel: str,
        track: int | None,
        raw: str | None,
        attention: str,
        segments: str,
        chunk_seconds: float,
        carry: int,
        words: bool,
        aligner: Aligner | str | os.PathLike[str] | None,
        skip: int = 0,
        before: str = "",
        max_audio_seconds: float | None = None,
    ) -> Stream:
        chunk_seconds = arguments.number(chunk_seconds, "chunk_seconds", 1, audio_input.MAX_SECONDS)
        options = self._options(language, context, attention, max_new_tokens)
        script, itn = arguments.optional_text(script, "script"), arguments.truth(itn, "itn")
        carry = arguments.whole(carry, "carry", 0, 1000)
        fit = audio_input.seconds_that_fit(
            self._engine.info.get("context_length") or 65536,
            options.context + _WIDEST_CHARACTER * carry,
            options.max_new_tokens,
        )
        most = min(chunk_seconds, fit)
        reading = segment.Reading()
        notes: list[str] = []
        finder, on_end = None, None
        if arguments.truth(words, "words"):
            from .aligner import MOST_SECONDS, Aligner, WordFinder

            if not isinstance(aligner, Aligner):
                aligner = self._lazy_aligner(aligner)
                on_end = aligner.close
            finder = WordFinder(aligner, options.language, script, itn, notes)
            most = min(most, MOST_SECONDS)
        pieces = segment.segments(
            audio,
            sample_rate,
            mode=arguments.choice(segments, "segments", segment.MODES),
            max_seconds=most,
            channel=channel,
            track=track,
            raw=raw,
            notes=notes,
            known=arguments.whole(skip, "skip", 0),
            reading=reading,
            limit_seconds=None
            if max_audio_seconds is None
            else arguments.number(max_audio_seconds, "max_audio_seconds", 0, math.inf),
        )
        return Stream(
            self._engine,
            pieces,
            options,
            script,
            itn,
            notes=notes,
            carry=carry,
            before=arguments.text(before, "before"),
            words=finder,
            reading=reading,
            on_end=on_end,
        )

    def _lazy_aligner(self, path_or_name: str | os.PathLike[str] | None) -> Aligner:
        """One that computes as this model does, and is loaded when it is needed."""
        from .aligner import Aligner

        hub.check_aligner(self._path, path_or_name)
        info = self._engine.info
        return Aligner(path_or_name, threads=info.get("threads"), kernels=info.get("kernels"), lazy=True)

    def transcribe_many(
        self, audios: Iterable[AudioSource], language: str | None = None, **options: Any
    ) -> Iterator[Transcript | Qwen3AsrError]:
        """Recognizes many audios, read ahead by threads, and yields their transcripts in order.

        An audio that cannot be recognized yields its error in place of a transcript, and the others go on; so test each
        result with ``isinstance(result, Qwen3AsrError)``. Audio is read ahead, by threads. Leaving the loop early, or
        Ctrl-C, stops what is under way.

        Args:
            audios: Taken one by one, up to a few more than ``batch`` ahead of the reader.
            language: As for ``transcribe``.
            options: As for ``transcribe``.

        Raises:
            ArgumentError, LanguageError: At the first audio: no audio can do better; at once for one audio in place of many.
            ModelClosedError, ForkedError: See the class.
        """
        audios = arguments.audios(audios)
        # Not loaded for each audio.
        aligner, own = options.get("aligner"), None
        if options.get("words") and (aligner is None or isinstance(aligner, (str, os.PathLike))):
            own = options["aligner"] = self._lazy_aligner(aligner)
        results = transcribe_many(
            lambda audio: self.stream(audio, language, **options), audios, self._engine.batch
        )
        return results if own is None else _closing(own, results)

    def live(
        self,
        language: str | None = None,
        *,
        context: str | Sequence[str] | None = "",
        chunk: float = 1.0,
        script: str | None = None,
        itn: bool = False,
        agreed_only: bool = True,
        on_update: Callable[[Update], None] | None = None,
    ) -> Live:
        """Begins to recognize speech that is being said; see ``Live``.

        Any number of live sessions, transcriptions and streams work on one model at a time.

        Args:
            language: As for ``transcribe``.
            context: As for ``transcribe``.
            chunk: Seconds of new audio from one hypothesis to the next, 0.2 to 10; longer by itself when the machine is
                too slow.
            script: As for ``transcribe``.
            itn: As for ``transcribe``; digits are written when an utterance has ended.
            agreed_only: Whether ``Update.tail`` holds only what two hypotheses in a row agree on; else all of the last.
            on_update: Called with each update, on the session's thread; then iterating gives none.

        Raises:
            LanguageError, ArgumentError, ModelClosedError, ForkedError: As for ``transcribe``.
            LibraryError: A library with only chatllm.cpp's own API has no live speech.
        """
        options = self._options(language, context, "window")
        self._engine.require_additions()
        return Live(
            self._engine,
            options,
            chunk=arguments.number(chunk, "chunk", 0.2, 10),
            script=arguments.optional_text(script, "script"),
            itn=arguments.truth(itn, "itn"),
            agreed_only=arguments.truth(agreed_only, "agreed_only"),
            on_update=on_update,
        )

    def log_mel(self, audio: AudioSource, *, sample_rate: int | None = None) -> NDArray[np.float32]:
        """The log-mel spectrogram [128, frames] that the encoder gets; a frame is 10 ms. Short audio is not padded."""
        pcm = audio_input.load(audio, sample_rate)
        with self._engine.turn() as session:
            return session.matrix("log_mel", pcm)

    def encode(
        self, audio: AudioSource, attention: str = "window", *, sample_rate: int | None = None
    ) -> NDArray[np.float32]:
        """The encoder's output [audio tokens, hidden], which replaces the embeddings of the audio's tokens."""
        mode = ATTENTION[self._options(None, "", attention).attention]
        pcm = audio_input.load(audio, sample_rate)
        with self._engine.turn() as session:
            return session.matrix("encode", pcm, mode)

    @_by_name("context", "attention")
    def prefill_logits(
        self,
        audio: AudioSource,
        language: str | None = None,
        *,
        context: str | Sequence[str] | None = "",
        attention: str = "window",
        sample_rate: int | None = None,
    ) -> NDArray[np.float32]:
        """The logits [vocabulary] of the first token of the answer."""
        options = self._options(language, context, attention)
        pcm = audio_input.load(audio, sample_rate)
        with self._engine.turn() as session:
            return session.prefill_logits(pcm, options)

    def _options(
        self, language: object, context: object, attention: object, max_new_tokens: object = None
    ) -> Options:
        return Options(
            language=self._engine.check_language(arguments.language(language)),
            context=arguments.context(context),
            max_new_tokens=arguments.optional_whole(max_new_tokens, "max_new_tokens"),
            attention=arguments.choice(attention, "attention", ATTENTION),
        )
