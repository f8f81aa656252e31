"""When each word of a text is said: Qwen3-ForcedAligner in the engine."""

from __future__ import annotations

import importlib.util
import json
import os
import threading
import unicodedata
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from . import arguments
from . import audio as audio_input
from ._native import ffi, lib
from .engine import ATTENTION, Engine, Holder
from .engine.shim import forked_error, samples_of
from .errors import ArgumentError, ContextLengthError, ModelClosedError, ModelFileError
from .files import hub
from .languages import name_of
from .transcript import Word
from .voice import utterance_activity

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .audio import AudioSource, Pcm
    from .engine.shim import Session
    from .transcript import Segment

_SHORTEST_SILENCE = (
    audio_input.SAMPLE_RATE // 2
)  # that is cut away at the ends: words are pulled into silence
# What the official code takes for ideographs.
_IDEOGRAPHS = (
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B820, 0x2CEAF),
    (0xF900, 0xFAFF),
)


class Unit(NamedTuple):
    """What gets one pair of times: ``text`` as the model reads it, said by ``[offset, end_offset)`` of the given text."""

    text: str
    offset: int
    end_offset: int


def split(text: str, language: str | None = None) -> list[Unit]:
    """The units of a text, as the official code splits it.

    Only letters, numbers and the ASCII apostrophe are read; all else is dropped without a break. Each ideograph is a
    unit; other writing is split at white space, Japanese and Korean by the libraries that the official code uses.

    Args:
        text: Any text.
        language: Name or code of its language.

    Raises:
        ArgumentError: The library that splits the language is not installed.
    """
    name = name_of(language or "").lower()
    if name == "japanese":
        return _placed(_japanese(text), text)
    if name == "korean":
        return _placed(_korean(text), text)
    return list(_general(text))


def _is_read(character: str) -> bool:
    return character == "'" or unicodedata.category(character)[0] in "LN"


def _is_ideograph(character: str) -> bool:
    return any(first <= ord(character) <= last for first, last in _IDEOGRAPHS)


def _general(text: str) -> Iterator[Unit]:
    run: list[int] = []  # places of the characters of a unit that goes on

    def unit() -> Iterator[Unit]:
        if run:
            yield Unit("".join(text[place] for place in run), run[0], run[-1] + 1)
            run.clear()

    for place, character in enumerate(text):
        if character.isspace():
            yield from unit()
        elif _is_ideograph(character):
            yield from unit()
            yield Unit(character, place, place + 1)
        elif _is_read(character):
            run.append(place)
    yield from unit()


def _clean(word: str) -> str:
    return "".join(filter(_is_read, word))


def _japanese(text: str) -> list[str]:
    try:
        import nagisa  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        raise ArgumentError(
            "Japanese is split into words by the package nagisa: pip install 'qwen3asr-native[japanese]', or give the words "
            "as a list"
        ) from None
    return [word for word in map(_clean, nagisa.tagging(text).words) if word]


def _korean(text: str) -> list[str]:
    return [word for word in map(_clean, _korean_tokenizer().tokenize(text)) if word]


@lru_cache(maxsize=1)
def _korean_tokenizer() -> Any:
    try:
        from soynlp.tokenizer import LTokenizer  # type: ignore[import-not-found,unused-ignore]

        found = importlib.util.find_spec("qwen_asr")  # which need not be complete: it is not imported
        folder = Path(found.submodule_search_locations[0])  # type: ignore[union-attr,index]
        dictionary = folder / "inference" / "assets" / "korean_dict_jieba.dict"
        lines = dictionary.read_text(encoding="utf-8").splitlines()
    except (ImportError, AttributeError, TypeError, OSError):
        raise ArgumentError(
            "Korean is split into words by the package soynlp with the dictionary of the package qwen-asr: pip install "
            "'qwen3asr-native[korean]' and pip install --no-deps qwen-asr, or give the words as a list"
        ) from None
    return LTokenizer({line.split()[0]: 1.0 for line in lines if line.strip()})


def _placed(words: Sequence[str], text: str) -> list[Unit]:
    """Words, of which each has some of the text's read characters, in order; a library may have changed their width."""
    places = [place for place, character in enumerate(text) if _is_read(character)]
    units, at = [], 0
    for word in words:
        wanted = len(unicodedata.normalize("NFKC", word))
        begin = at
        while at < len(places) and (
            at == begin
            or len(unicodedata.normalize("NFKC", "".join(text[p] for p in places[begin : at + 1]))) <= wanted
        ):
            at += 1
        if at > begin:
            units.append(Unit(word, places[begin], places[at - 1] + 1))
        else:  # the library has made characters of its own
            end = places[-1] + 1 if places else 0
            units.append(Unit(word, end, end))
    return units


def _given(words: Sequence[str]) -> list[Unit]:
    """A caller's own units, which stand in their text with a space between."""
    units, at = [], 0
    for word in words:
        if not isinstance(word, str):
            raise ArgumentError(f"text must be a string or a list of strings, not a list with {word!r}")
        cleaned = _clean(word)
        if cleaned:
            units.append(Unit(cleaned, at, at + len(word)))
        at += len(word) + 1
    return units


class Aligner(Holder):
    """A forced aligner: it tells when each word of a known text is said. Threads may share it.

    Args:
        path_or_name: As for ``Model``, of a Qwen3-ForcedAligner model; None for the built-in mini aligner (said once on
            standard error).
        dtype, threads, kernels, context_length: As for ``Model``.
        lazy: Load the model when it is first needed, not now. ``release`` frees it until then again.

    Raises:
        ModelFileError: The file is missing, damaged, or no forced aligner.
        DownloadError, ConversionError, ArgumentError, OutOfMemoryError: As for ``Model``.
    """

    def __init__(
        self,
        path_or_name: str | os.PathLike[str] | None = None,
        *,
        dtype: str | None = None,
        threads: int | None = None,
        kernels: str | None = None,
        context_length: int | None = None,
        lazy: bool = False,
    ) -> None:
        if path_or_name is None:
            hub.announce_built_in_aligner()
            path_or_name = hub.BUILT_IN_ALIGNER_NAME
        self._name = path_or_name = arguments.path(path_or_name, "the aligner")
        checkpoint = hub.checkpoint(path_or_name)
        if checkpoint is not None:
            path = hub.quantized_copy(checkpoint, dtype or "q8_0")
            weakref.finalize(self, hub.remove_copy, path, os.getpid())
        elif dtype is not None:
            raise ArgumentError("dtype is for checkpoint directories; model files are of one type already")
        else:
            path = hub.resolve(path_or_name)
        self._path = path
        self._options: dict[str, Any] = {
            "threads": arguments.threads(threads),
            "kernels": arguments.optional_text(kernels, "kernels"),
            "context_length": arguments.optional_whole(context_length, "context_length"),
        }
        self._lock, self._pid = threading.RLock(), os.getpid()
        self._loaded: Engine | None = None
        self._closed = False
        if arguments.truth(lazy, "lazy"):
            self._check(json.loads(ffi.string(lib.chatllm_inspect_model(os.fsencode(path)))))
        else:
            self._engine  # noqa: B018 - loads

    @property
    def _engine(self) -> Engine:  # type: ignore[override]
        """The engine, loaded now if it is not."""
        if os.getpid() != self._pid:
            raise forked_error()
        with self._lock:
            if self._closed:
                raise ModelClosedError("the aligner is closed; make a new Aligner")
            if self._loaded is None:
                engine = Engine(self._path, **self._options)
                try:
                    self._check(engine.info)
                except BaseException:
                    engine.close()
                    raise
                self._loaded = engine
            return self._loaded

    def _check(self, info: dict[str, Any]) -> None:
        if "error" in info:
            raise ModelFileError(info["error"])
        if info.get("purpose") != "ForcedAligner":
            raise ModelFileError(
                f"'{self._name}' is no forced aligner, which word times need; use a Qwen3-ForcedAligner model"
            )

    @property
    def path(self) -> Path:
        """The model file."""
        return self._path

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._closed

    @property
    def loaded(self) -> bool:
        """Whether the model is in memory."""
        return self._loaded is not None

    def release(self) -> None:
        """Waits for what runs, and frees the model until it is needed again. Harmless when nothing is loaded."""
        if os.getpid() != self._pid:  # the lock may be held by a thread that is not here
            self._loaded = None
            return
        with self._lock:
            engine, self._loaded = self._loaded, None
            if engine is not None:
                engine.close()

    def close(self) -> None:
        """Waits for what runs, frees everything and returns the memory to the system. Harmless when closed."""
        self._closed = True
        self.release()

    def align(
        self,
        audio: AudioSource,
        text: str | Sequence[str],
        language: str | None = None,
        *,
        sample_rate: int | None = None,
        attention: str = "window",
    ) -> list[Word]:
        """The words of ``text`` with the seconds at which they begin and end in ``audio``.

        Times never decrease and lie inside the audio. Silence before and after the speech is not looked at. A text with
        nothing that is said, punctuation only for example, has no words.

        Args:
            audio: As for ``Model.transcribe``; at most the length that the model can tell, 5 minutes for the released one.
            text: What is said in it; a list of words decides itself what a word is, and their offsets are those in the
                words with a space between.
            language: Name or code of the text's language; matters for Japanese and Korean only.
            sample_rate: Hz, for arrays.
            attention: Encoder attention, "window" or "full".

        Raises:
            AudioError: The audio is missing, empty, not audio, or holds NaN.
            ArgumentError: The text's language needs a library that is not installed, or an option is wrong.
            ContextLengthError: Audio or text are too long: align shorter pieces.
            ModelClosedError, ForkedError: As for ``Model``.
        """
        language = arguments.language(language)
        mode = ATTENTION[arguments.choice(attention, "attention", ATTENTION)]
        if isinstance(text, str):
            whole, units = text, split(text, language)
        elif isinstance(text, (list, tuple)):
            units, whole = _given(text), " ".join(text)
        else:
            raise ArgumentError(f"text must be a string or a list of strings, not {type(text).__name__}")
        pcm = audio_input.load(audio, sample_rate)
        return self._words(pcm, whole, units, mode)

    def _words(self, pcm: Pcm, text: str, units: Sequence[Unit], mode: int) -> list[Word]:
        if not units:
            return []
        begin, end = _spoken(pcm)
        duration = (end - begin) / audio_input.SAMPLE_RATE
        times = self._times(pcm[begin:end], units, mode) / 1000
        seconds = np.round(np.clip(times, 0, duration) + begin / audio_input.SAMPLE_RATE, 3)
        seconds = np.minimum(seconds, len(pcm) / audio_input.SAMPLE_RATE)
        return [
            Word(text[unit.offset : unit.end_offset], float(first), float(last), unit.offset, unit.end_offset)
            for unit, (first, last) in zip(units, seconds)
        ]

    def _times(self, pcm: Pcm, units: Sequence[Unit], mode: int) -> NDArray[np.float64]:
        """Milliseconds [units, 2] as the official code has them: they may lie behind the end of the audio."""
        samples, (pointers, texts) = samples_of(pcm), _c_texts(units)
        times = ffi.new("double[]", 2 * len(units) + 1)
        with self._session() as session:
            session.check(
                lib.chatllm_asr_align(
                    session.object, samples, len(samples), pointers, len(units), mode, times
                )
            )
        del texts  # until here the pointers pointed into them
        return np.frombuffer(ffi.buffer(times), np.float64)[: 2 * len(units)].reshape(-1, 2).copy()

    @contextmanager
    def _session(self) -> Iterator[Session]:
        """The engine's, which stays loaded inside."""
        self._engine  # noqa: B018 - a lock that a fork has copied would never be free
        with self._lock, self._engine.turn() as session:
            yield session

    def _scores(self, pcm: Pcm, units: Sequence[Unit], mode: int) -> NDArray[np.float32]:
        """The scores [2 * units, classes] that the times are chosen from."""
        pointers, texts = _c_texts(units)
        with self._session() as session:
            scores = session.matrix_of(lib.chatllm_asr_align_scores, pcm, pointers, len(units), mode)
        del texts
        return scores


def _c_texts(units: Sequence[Unit]) -> tuple[Any, list[Any]]:
    texts = [ffi.new("char[]", unit.text.encode("utf-8", "replace")) for unit in units]
    return ffi.new("char *[]", texts), texts


def _spoken(pcm: Pcm) -> tuple[int, int]:
    """Samples [begin, end) without long silence at the ends; all of them when nobody is heard."""
    activity = utterance_activity(ahead=True)
    edges = activity.feed(pcm) + activity.finish()
    if not edges:
        return 0, len(pcm)
    begin, end = edges[0].position, edges[-1].position
    if begin < _SHORTEST_SILENCE:
        begin = 0
    if len(pcm) - end < _SHORTEST_SILENCE:
        end = len(pcm)
    return (begin, end) if end - begin >= audio_input.SAMPLE_RATE // 10 else (0, len(pcm))


#: Longer pieces are not aligned: where the official code cuts audio of which words are wanted.
MOST_SECONDS = 180


class WordFinder:
    """Finds the words of pieces that are recognized.

    Args:
        aligner: Finds them.
        language: That the model is made to hear; None when it is detected.
        script: The script in which the segments are written; None keeps the model's.
        itn: Whether their numbers are digits.
        notes: Gets a sentence when the words of a segment cannot be found, once for each reason.

    Raises:
        ArgumentError: The language needs a library that is not installed.
    """

    def __init__(
        self, aligner: Aligner, language: str | None, script: str | None, itn: bool, notes: list[str]
    ) -> None:
        self._aligner, self._forced = aligner, language
        self._script, self._itn = script, itn
        self._notes = notes
        self._reasons: set[str] = set()
        split("", language)

    def with_words(self, segment: Segment, pcm: Pcm) -> Segment:
        """A finished segment with its words. pcm: Its audio."""
        from .text.offsets import carried, unchanged
        from .text.parse import parse_output
        from .text.written import written

        if not segment.text.strip():
            return segment
        # What is said is aligned, 零九零零 and not 0900; then its words go to where they are in the text as it is written.
        spoken = parse_output(segment.raw, self._forced).text
        derived = written(spoken, segment.language, script=self._script, itn=self._itn)
        if derived.text != segment.text:  # it was mended since
            derived = unchanged(segment.text)
            spoken = segment.text
        try:
            words = self._aligner.align((pcm, audio_input.SAMPLE_RATE), spoken, segment.language or None)
        except (ArgumentError, ContextLengthError) as error:  # of this segment: another one may do better
            if str(error) not in self._reasons:
                self._reasons.add(str(error))
                self._notes.append(f"the words at {segment.start:.1f} s have no times: {error}")
            return segment
        return replace(
            segment,
            words=tuple(
                replace(
                    word, start=round(segment.start + word.start, 3), end=round(segment.start + word.end, 3)
                )
                for word in carried(words, derived)
            ),
        )
