"""Where somebody speaks, by the level of the sound over the level of the room."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from .audio import Pcm

_RATE = 16000
_FRAME = _RATE // 50  # 20 ms
_START_DB, _STAY_DB = 12.0, 8.0  # over the room
_QUIETEST_DB = -60.0  # nothing below it is speech
_ROOM_DB = -50.0  # what a room is thought to be at most, before it is heard
_RISE_DB = 1.5 * _FRAME / _RATE  # a room that becomes louder is believed slowly
_START_FRAMES = 3  # of the last five
_PAD = 3 * _RATE // 10  # before the first frame and after the last
_HANG = 6 * _RATE // 10  # of silence end an utterance


class EnergyActivity:
    """Tells speech from silence in 16 kHz samples, block by block.

    Attributes:
        voiced_until: Sample up to which the speech that goes on may be taken: its last loud frame, and a pad.
        lookback: How many samples before the last one a speech that begins may reach back.
    """

    lookback = _PAD + 6 * _FRAME

    def __init__(self) -> None:
        self.voiced_until = 0
        self._position = 0  # of the next frame
        self._rest = np.zeros(0, np.float32)
        self._room = _ROOM_DB
        self._recent = 0  # loud frames among the last five, a bit each
        self._speaking = False
        self._last_loud = 0
        self._last_end = 0

    @property
    def quiet_amplitude(self) -> float:
        """Mean magnitude below which a stretch of sound is a pause."""
        return 0.8 * 10 ** ((self._room + _STAY_DB) / 20)

    def feed(self, pcm: Pcm) -> list[tuple[bool, int]]:
        """Takes the next samples. Speech that has begun (True) or ended (False) and where, in order."""
        samples = np.concatenate([self._rest, pcm])
        frames = len(samples) // _FRAME
        power = np.square(samples[: frames * _FRAME].reshape(frames, _FRAME), dtype=np.float64).mean(axis=1)
        self._rest = samples[frames * _FRAME :]
        events: list[tuple[bool, int]] = []
        for level in 10 * np.log10(power + 1e-12):
            self._frame(float(level), events)
        return events

    def _frame(self, level: float, events: list[tuple[bool, int]]) -> None:
        begin, self._position = self._position, self._position + _FRAME
        self._room = min(self._room + _RISE_DB, level) if math.isfinite(level) else self._room
        self._room = max(self._room, _QUIETEST_DB - _START_DB)
        threshold = max(self._room + (_STAY_DB if self._speaking else _START_DB), _QUIETEST_DB)
        loud = level > threshold
        self._recent = (self._recent << 1 | loud) & 31
        if loud:
            self._last_loud = self._position
            self.voiced_until = self._position
        if not self._speaking:
            if bin(self._recent).count("1") >= _START_FRAMES:
                self._speaking = True
                events.append((True, max(self._last_end, begin - 4 * _FRAME - _PAD)))
            return
        self.voiced_until = min(self._last_loud + _PAD, self._position)
        if self._position - self._last_loud >= _HANG:
            self._speaking = False
            self._last_end = self._last_loud + _PAD
            events.append((False, self._last_end))
