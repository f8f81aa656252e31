"""Segments of speech: long audio is recognized between its pauses, and silence not at all.

``voice`` finds where somebody speaks; here that becomes segments of a length that models hear well.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from . import audio as audio_input
from .audio import SAMPLE_RATE, Piece
from .errors import ArgumentError, AudioTooLongError
from .voice import Edge, VoiceActivity, file_activity

if TYPE_CHECKING:
    from .audio import AudioSource, Pcm

MODES = ("auto", "fixed", "quiet", "voice")
#: A pause of this length ends a segment, and is left out; shorter ones stay inside, where no better cut is needed.
_SKIP_SECONDS = 2.0
_LEAST_SECONDS = 1.0


@dataclass
class Reading:
    """How far audio has been read, in samples from its beginning.

    Attributes:
        begin: The end of the segments that were left out because they are known.
        end: What has been read; the length of the audio when there are no more segments.
    """

    begin: int = 0
    end: int = 0


def segments(
    audio: AudioSource,
    sample_rate: int | None = None,
    *,
    mode: str = "auto",
    max_seconds: float = audio_input.PIECE_SECONDS,
    target_seconds: float | None = None,
    channel: str = "mix",
    track: int | None = None,
    raw: str | None = None,
    notes: list[str] | None = None,
    known: int = 0,
    reading: Reading | None = None,
    limit_seconds: float | None = None,
) -> Iterator[Piece]:
    """Reads audio in segments of speech; each knows its place in the audio.

    Args:
        audio, sample_rate, channel, track, raw, notes: See ``audio.load``.
        mode: "auto": audio of up to ``max_seconds`` is one segment; longer audio is cut by voice activity
            (``voice.file_activity``). "voice": voice activity in audio of any length. "quiet": all of the audio,
            cut at the quietest 100 ms near the limit. "fixed": all of it, cut at the limit.
        max_seconds: No segment is longer; at least 1. ``audio.seconds_that_fit`` says what a model can take.
        target_seconds: A segment that would get longer than ``max_seconds`` ends at its longest pause after half of this.
            Where there is none, between this and ``max_seconds``, in the middle of the quietest 100 ms. None takes two
            thirds of ``max_seconds``.
        known: So many segments at the beginning are left out.
        reading: Tells how far the audio is read.
        limit_seconds: Longer audio is an AudioTooLongError; little more than this is read.

    Yields:
        Segments in order, none overlapping. With voice activity, pauses of 2 s and more are left out, and audio without
        speech gives none.

    Raises:
        ArgumentError: A mode or length that cannot be.
        AudioError: As ``audio.load``.
    """
    if mode not in MODES:
        raise ArgumentError(f"segments must be one of {', '.join(MODES)}, not {mode!r}")
    if not max_seconds >= _LEAST_SECONDS:
        raise ArgumentError(f"max_seconds must be at least {_LEAST_SECONDS:.0f}, not {max_seconds}")
    target_seconds = max_seconds * 2 / 3 if target_seconds is None else target_seconds
    reading = Reading() if reading is None else reading
    blocks = _counted(
        audio_input.blocks(audio, sample_rate, channel, track, raw, notes), reading, limit_seconds
    )
    pieces = _cut(blocks, mode, max_seconds, target_seconds)
    for piece in islice(pieces, known):
        reading.begin = piece.end
    for piece in pieces:
        yield piece._replace(pcm=audio_input.in_range(piece.pcm))


def _counted(blocks: Iterator[Pcm], reading: Reading, limit_seconds: float | None) -> Iterator[Pcm]:
    for block in blocks:
        reading.end += len(block)
        if limit_seconds is not None and reading.end > limit_seconds * SAMPLE_RATE:
            raise AudioTooLongError(
                f"the audio is longer than the {limit_seconds:g} s that may be taken: send it in parts"
            )
        yield block


def _cut(blocks: Iterator[Pcm], mode: str, max_seconds: float, target_seconds: float) -> Iterator[Piece]:
    most = int(max_seconds * SAMPLE_RATE)
    if mode == "fixed":
        return _fixed(blocks, most)
    if mode == "quiet":
        return audio_input.split(blocks, max(max_seconds - 5, max_seconds / 1.5))
    if mode == "voice":
        return _spoken(blocks, file_activity(), most, target_seconds)
    return _auto(blocks, most, target_seconds)


def _auto(blocks: Iterator[Pcm], most: int, target_seconds: float) -> Iterator[Piece]:
    held: list[Pcm] = []
    count = 0
    for block in blocks:
        held.append(block)
        count += len(block)
        if count > most:
            yield from _spoken(_chain(held, blocks), file_activity(), most, target_seconds)
            return
    yield Piece(0, np.concatenate(held), last=True)


def _chain(held: list[Pcm], blocks: Iterator[Pcm]) -> Iterator[Pcm]:
    while held:
        yield held.pop(0)
    yield from blocks


def _fixed(blocks: Iterable[Pcm], most: int) -> Iterator[Piece]:
    tape = _Tape()
    for block in blocks:
        tape.add(block)
        while tape.end - tape.begin >= most:
            start = tape.begin
            yield Piece(start, tape.take(start, start + most))
    if tape.end > tape.begin:
        yield Piece(tape.begin, tape.take(tape.begin, tape.end))


class _Tape:
    """The samples that may still be needed."""

    def __init__(self) -> None:
        self.begin = self.end = 0
        self._blocks: deque[Pcm] = deque()

    def add(self, block: Pcm) -> None:
        self._blocks.append(block)
        self.end += len(block)

    def forget(self, position: int) -> None:
        """What lies before a position is not needed again."""
        while self._blocks and self.begin + len(self._blocks[0]) <= position:
            self.begin += len(self._blocks.popleft())
        if self._blocks and position > self.begin:
            self._blocks[0] = self._blocks[0][position - self.begin :]
            self.begin = position

    def look(self, begin: int, end: int) -> Pcm:
        parts: list[Pcm] = []
        at = self.begin
        for block in self._blocks:
            if at >= end:
                break
            if at + len(block) > begin:
                parts.append(block[max(0, begin - at) : end - at])
            at += len(block)
        return np.concatenate(parts) if parts else np.zeros(0, np.float32)

    def take(self, begin: int, end: int) -> Pcm:
        samples = self.look(begin, end)
        self.forget(end)
        return samples


def _spoken(
    blocks: Iterable[Pcm],
    activity: VoiceActivity,
    most: int,
    target_seconds: float,
) -> Iterator[Piece]:
    """Segments of speech; in memory is one of them, and what has not been looked at."""
    tape = _Tape()
    cutter = _Cutter(tape, most, int(target_seconds * SAMPLE_RATE))
    skip = int(_SKIP_SECONDS * SAMPLE_RATE) - 2 * activity.pad

    def found(edges: list[Edge], settled: int) -> Iterator[Piece]:
        for begin, end in cutter.spans(edges, settled, skip):
            yield Piece(begin, tape.take(begin, end))
        tape.forget(settled if cutter.start is None else cutter.start)

    for block in blocks:
        for at in range(0, len(block), SAMPLE_RATE):
            part = block[at : at + SAMPLE_RATE]
            tape.add(part)
            edges = activity.feed(part)
            yield from found(edges, activity.settled)
    edges = activity.finish()
    yield from found(edges, tape.end)
    if cutter.start is not None:
        yield from found([Edge("start", tape.end + 2 * skip)], tape.end)


class _Cutter:
    """Stretches of speech -> spans of segments."""

    def __init__(self, tape: _Tape, most: int, target: int) -> None:
        self._tape, self._most, self._target = tape, most, min(target, most)
        self.start: int | None = None  # of the segment that is under way
        self._end: int | None = None  # of its last stretch, when that has ended
        self._pauses: list[tuple[int, int]] = []

    def spans(self, edges: list[Edge], settled: int, skip: int) -> Iterator[tuple[int, int]]:
        for kind, position in edges:
            yield from self._shorten(position)
            if kind == "end":
                self._end = position
            elif self.start is None or self._end is None:
                self.start = position
            elif position - self._end >= skip:
                yield self.start, self._end
                self.start = position if position <= self._tape.end else None
                self._end, self._pauses = None, []
            else:
                self._pauses.append((self._end, position))
                self._end = None
        yield from self._shorten(settled)
        if self.start is not None and self._end is not None and settled - self._end >= skip:
            yield self.start, self._end
            self.start, self._end, self._pauses = None, None, []

    def _shorten(self, position: int) -> Iterator[tuple[int, int]]:
        """Cuts while the segment, known up to a position, is too long."""
        while self.start is not None:
            upto = position if self._end is None else self._end
            if upto - self.start <= self._most:
                return
            least, last = self.start + self._target // 2, self.start + self._most
            within = [pause for pause in self._pauses if pause[0] <= last]
            late = [pause for pause in within if pause[0] >= least]
            if within:
                cut, following = max(late or within, key=lambda pause: pause[1] - pause[0])
            else:
                begin = self.start + min(self._target, self._most * 2 // 3)
                within_reach = self._tape.look(begin, last)
                cut = following = begin + audio_input.quietest(within_reach, 0, len(within_reach))
            yield self.start, cut
            self.start = following
            self._pauses = [pause for pause in self._pauses if pause[0] > cut]
