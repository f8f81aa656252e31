"""Answers that cannot be right, recognized and mended: endless repetition, and the context said back on silence.

The rules. An answer that the loop guard of the engine has stopped is tried once more: the piece is cut in two at the
quietest 100 ms of its middle half, and the halves are recognized without context, which often feeds a loop. What loops
again stays, repaired as the official post-processing does (``text.parse``), with the finish "loop". An answer that is the
context itself, word for word, on audio without the ups and downs of speech, is emptied.
"""

from __future__ import annotations

import unicodedata
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from .assembly import Assembly, Recognized, SegmentReader
from .audio import SAMPLE_RATE, Piece, quietest
from .engine import Event, Run, RunResult

if TYPE_CHECKING:
    from .audio import Pcm

#: What a segment is marked with.
RETRIED = "retried"
ECHO = "echo"

# Shorter halves have nothing that could be heard better.
_SHORTEST_HALF = SAMPLE_RATE
_WORST_FIRST = ("abort", "loop", "length", "stop")
# Levels are taken over frames of this length, samples.
_FRAME = SAMPLE_RATE // 40
# Speech rises and falls by more than this between its loud and its quiet frames, decibels; noise and hum do not.
_SPEECH_RANGE = 10.0
# Below this there is nothing to hear, decibels below full scale.
_SILENCE = -60.0


def halves(piece: Piece) -> list[Piece]:
    """The piece in two, cut at the quietest 100 ms of its middle half; none when it is too short for that."""
    length = len(piece.pcm)
    if length < 2 * _SHORTEST_HALF:
        return []
    cut = quietest(piece.pcm, max(_SHORTEST_HALF, length // 4), min(length - _SHORTEST_HALF, length * 3 // 4))
    return [Piece(piece.start, piece.pcm[:cut]), Piece(piece.start + cut, piece.pcm[cut:])]


class Retry:
    """The second try of a piece, under way.

    Args:
        parts: Its halves.
        submit: Begins the run of a half.
        assembly: An empty one, of the same language, script and form as the transcript's.
    """

    def __init__(self, parts: Sequence[Piece], submit: Callable[[Piece], Run], assembly: Assembly) -> None:
        self._runs = deque((part, submit(part)) for part in parts)
        self._assembly = assembly
        self._reader: SegmentReader | None = None

    def advance(self) -> bool:
        """Takes one event of the engine; True when the second try is done."""
        if not self._runs:
            return True
        part, run = self._runs[0]
        if self._reader is None:
            self._reader = self._assembly.begin(part)
        event = run.next()
        if isinstance(event, Event):
            self._assembly.take(self._reader, event, run.start_ns)
        elif isinstance(event, RunResult):
            self._assembly.end(self._reader, event, event.finish)
            self._reader = None
            self._runs.popleft()
        return not self._runs

    def mend(self, first: Recognized) -> Recognized:
        """The segment of the second try in place of the first; the first, when the second was stopped."""
        whole = self._assembly.transcript(None)
        finishes = [segment.finish for segment in whole.segments]
        finish = next((one for one in _WORST_FIRST if one in finishes), None)
        if finish == "abort":
            return first
        segment = replace(
            first.segment,
            text=whole.text,
            language=next((part.language for part in whole.segments if part.language), ""),
            raw=whole.raw,
            finish=finish,
            timings=replace(whole.timings, retries=1),
            tokens=whole.tokens,
            marks=(*first.segment.marks, RETRIED),
        )
        end_ns = max(part.end_ns for part in self._assembly.done)
        return Recognized(
            segment, whole.recognized, whole.converted or whole.recognized, first.start_ns, end_ns
        )


def without_echo(first: Recognized, context: str, pcm: Pcm) -> Recognized:
    """The segment; emptied when it says the context and there is no speech in its audio."""
    said = _bare(first.recognized)
    if not said or said != _bare(context) or has_speech(pcm):
        return first
    segment = replace(first.segment, text="", language="", marks=(*first.segment.marks, ECHO))
    return Recognized(segment, "", "", first.start_ns, first.end_ns)


def _bare(text: str) -> str:
    """Letters and digits alone: a model writes punctuation and case its own way."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return "".join(character for character in folded if character.isalnum())


def has_speech(pcm: Pcm) -> bool:
    """Whether the level of 25 ms frames rises and falls as that of speech does, whatever the noise below it."""
    frames = len(pcm) // _FRAME
    if frames < 4:
        return (
            bool(len(pcm))
            and _decibels(np.asarray([np.mean(np.square(pcm, dtype=np.float64))]))[0] > _SILENCE
        )
    power = np.square(pcm[: frames * _FRAME], dtype=np.float64).reshape(frames, _FRAME).mean(axis=1)
    quiet, loud = np.percentile(_decibels(power), (10, 95))
    return bool(loud > _SILENCE and loud - max(quiet, _SILENCE - 10) > _SPEECH_RANGE)


def _decibels(
    power: np.ndarray[tuple[int], np.dtype[np.float64]],
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return 10 * np.log10(power + 1e-12)
