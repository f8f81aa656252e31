"""espeak-ng as a library in this process: a thousand times as fast as real time, and it tells when each word is said."""

from __future__ import annotations

import ctypes
import re
import unicodedata
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .speech import Voice

LIBRARY = "libespeak-ng.so.1"
# From speak_lib.h.
_SYNCHRONOUS, _PHONEME_EVENTS, _DONT_EXIT = 2, 1, 0x8000
_WORD, _PHONEME, _TERMINATED = 1, 7, 0
_RATE, _PITCH, _WORD_GAP = 1, 3, 7
_CHARACTERS, _UTF8 = 1, 1
_IDEOGRAPH = "\u3400-\u4dbf\u4e00-\u9fff"


class Span(NamedTuple):
    """A word of espeak-ng: where it begins in the text, and when it is said, in seconds."""

    place: int
    start: float
    end: float


class Unit(NamedTuple):
    """What an aligner gives one pair of times, as ``qwen3asr_native.aligner.split`` finds it in a text."""

    text: str
    offset: int
    end_offset: int


class _Identity(ctypes.Union):
    _fields_ = [("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8)]


class _Event(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int),
        ("identifier", ctypes.c_uint),
        ("place", ctypes.c_int),
        ("length", ctypes.c_int),
        ("milliseconds", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user", ctypes.c_void_p),
        ("id", _Identity),
    ]


class _Properties(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_char_p),
        ("languages", ctypes.c_char_p),
        ("identifier", ctypes.c_char_p),
        ("gender", ctypes.c_ubyte),
        ("age", ctypes.c_ubyte),
        ("variant", ctypes.c_ubyte),
        ("reserved", ctypes.c_ubyte),
        ("score", ctypes.c_int),
        ("spare", ctypes.c_void_p),
    ]


_Callback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)


class Espeak:
    """The library, once a process. ``home``: folder that holds ``espeak-ng-data``; without, the installed one.

    Raises:
        OSError: The library is not installed.
        RuntimeError: It does not find its data, or has no such voice.
    """

    def __init__(self, home: Path | None = None) -> None:
        self._library = ctypes.CDLL(LIBRARY)
        path = str(home).encode() if home else None
        self.rate = self._library.espeak_Initialize(_SYNCHRONOUS, 0, path, _PHONEME_EVENTS | _DONT_EXIT)
        if self.rate <= 0:
            raise RuntimeError(f"espeak-ng finds no data in {home or 'its own folder'}")
        self._callback = _Callback(self._receive)
        self._library.espeak_SetSynthCallback(self._callback)
        self._waves: list[bytes] = []
        self._events: list[tuple[int, int, int, bytes]] = []

    def _receive(
        self, wave: ctypes._Pointer[ctypes.c_short], count: int, events: ctypes._Pointer[_Event]
    ) -> int:
        if count > 0:
            self._waves.append(ctypes.string_at(wave, 2 * count))
        number = 0
        while events[number].type != _TERMINATED:
            event = events[number]
            if event.type == _WORD and event.length > 0:
                self._events.append((event.sample, _WORD, event.place - 1, b""))
            elif event.type == _PHONEME:
                self._events.append((event.sample, _PHONEME, 0, event.id.string))
            number += 1
        return 0

    def say(self, text: str, voice: Voice) -> tuple[np.ndarray, list[Span]]:
        """int16 samples [n] at ``rate`` and the words; a word ends where a pause or the next word begins."""
        name = voice.name.encode()
        # As the program does: what is no voice's name may be a language's.
        if self._library.espeak_SetVoiceByName(name) != 0 and self._library.espeak_SetVoiceByProperties(
            ctypes.byref(_Properties(languages=name))
        ):
            raise RuntimeError(f"espeak-ng has no voice {voice.name!r}")
        for parameter, value in ((_RATE, voice.rate), (_PITCH, voice.pitch), (_WORD_GAP, voice.gap)):
            self._library.espeak_SetParameter(parameter, value, 0)
        self._waves.clear()
        self._events.clear()
        data = text.encode()
        self._library.espeak_Synth(data, len(data) + 1, 0, _CHARACTERS, 0, _UTF8, None, None)
        self._library.espeak_Synchronize()
        samples = np.frombuffer(b"".join(self._waves), np.int16)
        spans: list[Span] = []
        begun: tuple[int, int] | None = None
        for sample, kind, place, name in [*self._events, (samples.size, _WORD, -1, b"")]:
            if begun and (kind == _WORD or name.startswith(b"_")):
                if sample > begun[1]:
                    spans.append(Span(begun[0], begun[1] / self.rate, sample / self.rate))
                begun = None
            if kind == _WORD:
                begun = (place, sample)
        return samples, spans


def units(text: str) -> list[Unit]:
    """Ideographs one by one, other writing at white space; only letters, numbers and the apostrophe are read."""
    found = []
    for match in re.finditer(rf"[{_IDEOGRAPH}]|[^\s{_IDEOGRAPH}]+", text):
        read = [c == "'" or unicodedata.category(c)[0] in "LN" for c in match.group()]
        if any(read):
            word = "".join(c for c, is_read in zip(match.group(), read) if is_read)
            last = len(read) - read[::-1].index(True)
            found.append(Unit(word, match.start() + read.index(True), match.start() + last))
    return found


def unit_times(text: str, spans: list[Span]) -> list[tuple[str, float, float]] | None:
    """``(unit, start, end)`` of every unit; None where espeak-ng has run words together."""
    times = []
    for unit in units(text):
        inside = [span for span in spans if unit.offset <= span.place < unit.end_offset]
        if not inside:
            return None
        times.append((unit.text, inside[0].start, inside[-1].end))
    return times
