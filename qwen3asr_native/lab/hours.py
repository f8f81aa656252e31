"""Long recordings made of clips, of which is known who speaks where; and how well their segments and text keep to it."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..audio import SAMPLE_RATE, load
from .measure import extra

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..audio import Pcm
    from ..transcript import Segment

GAPS = ("silence", "noise", "music")
_SPEECH_RMS = 0.05
_NOISE_RMS = 0.003
_MUSIC_RMS = 0.02
_QUIET = 0.5  # seconds between speech and music
_ROOM_RMS = 1e-4  # lies under everything
_LENGTHS = 8  # of gaps, in a deck


class Clip(NamedTuple):
    """A clip without the silence at its ends [n] at 16 kHz, and what is said in it."""

    pcm: Pcm
    text: str


class Spoken(NamedTuple):
    """A clip's place in a recording, samples, and its number."""

    begin: int
    end: int
    clip: int


def read_clips(folder: Path) -> list[Clip]:
    """The clips with speech that ``clips.tsv`` of a folder lists, trimmed and of one loudness."""
    with (folder / "clips.tsv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file, delimiter="\t") if row["text"]]
    return [Clip(_trimmed(load(folder / row["file"])), row["text"]) for row in rows]


def _trimmed(pcm: Pcm) -> Pcm:
    level = np.sqrt(np.convolve(pcm * pcm, np.ones(320) / 320, "same"))
    loud = np.flatnonzero(level > level.max() / 100)
    pcm = pcm[loud[0] : loud[-1] + 1]
    return _at_level(pcm, _SPEECH_RMS)


def _at_level(samples: NDArray[Any], rms: float) -> Pcm:
    levelled: Pcm = (samples * (rms / np.sqrt(np.square(samples).mean()))).astype(np.float32)
    return levelled


def in_room(clip: Clip, random: np.random.Generator) -> Pcm:
    """A clip alone, as a recording has it: in the room's noise, 0.2 s of which are before and after."""
    margin = np.zeros(SAMPLE_RATE // 5, np.float32)
    return _with_room(np.concatenate((margin, clip.pcm, margin)), random)


def _with_room(pcm: Pcm, random: np.random.Generator) -> Pcm:
    return pcm + np.float32(_ROOM_RMS) * random.standard_normal(len(pcm), np.float32)


class _Deck:
    """Draws in chance order, each card once before any comes again: shares are those of the deck at any length."""

    def __init__(self, count: int, random: np.random.Generator) -> None:
        self._count, self._random = count, random
        self._left: list[int] = []

    def draw(self) -> int:
        if not self._left:
            self._left = self._random.permutation(self._count).tolist()
        return self._left.pop()


class Recording:
    """A recording of clips in chance order with gaps between them, block by block: any length in little memory.

    Clips, kinds of gaps and their lengths each come from a deck, so that minutes are alike: costs for an hour can be compared.

    Args:
        clips: What may be said.
        seconds: Its length is a little more.
        gaps: Kinds of sound between clips, of ``GAPS``.
        pause: Shortest and longest gap, seconds.
        seed: The same seed gives the same recording.

    Attributes:
        spoken: What lies where, as far as the blocks are taken.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        seconds: float,
        gaps: Sequence[str] = GAPS,
        pause: tuple[float, float] = (2.5, 8.0),
        seed: int = 0,
    ) -> None:
        self._clips, self._seconds, self._gaps, self._pause = clips, seconds, gaps, pause
        self._seed = seed
        self.spoken: list[Spoken] = []

    def blocks(self) -> Iterator[Pcm]:
        """Gap, clip, gap, clip ... gap; float32 at 16 kHz."""
        random = np.random.default_rng(self._seed)
        clips, gaps = _Deck(len(self._clips), random), _Deck(_LENGTHS * len(self._gaps), random)
        shortest, longest = self._pause
        self.spoken = []
        at = 0
        while True:
            length, kind = divmod(gaps.draw(), len(self._gaps))
            share = (length + random.uniform()) / _LENGTHS
            count = int((shortest + share * (longest - shortest)) * SAMPLE_RATE)
            yield _with_room(_gap(self._gaps[kind], count, random), random)
            at += count
            if at >= self._seconds * SAMPLE_RATE:
                return
            number = clips.draw()
            pcm = self._clips[number].pcm
            self.spoken.append(Spoken(at, at + len(pcm), number))
            at += len(pcm)
            yield _with_room(pcm, random)

    def write(self, path: Path) -> None:
        """As a FLAC or WAV file of 16 bits."""
        import soundfile

        with soundfile.SoundFile(str(path), "w", SAMPLE_RATE, 1, "PCM_16") as file:
            for block in self.blocks():
                file.write(block)


def _gap(kind: str, count: int, random: np.random.Generator) -> Pcm:
    if kind == "silence":
        return np.zeros(count, np.float32)
    if kind == "noise":
        return np.float32(_NOISE_RMS) * random.standard_normal(count, np.float32)
    return _music(count, random)


def _music(count: int, random: np.random.Generator) -> Pcm:
    """Plucked strings: a note each half second, each fading; half a second after who spoke last, and before who speaks next."""
    samples = np.zeros(count + SAMPLE_RATE)
    time = np.arange(SAMPLE_RATE) / SAMPLE_RATE
    for begin in range(0, count, SAMPLE_RATE // 2):
        pitch = 220 * 2 ** (random.integers(0, 24) / 12)
        tone = sum(np.sin(2 * np.pi * pitch * harmonic * time) / harmonic for harmonic in range(1, 6))
        samples[begin : begin + len(time)] += np.exp(-3 * time) * tone
    near = np.minimum(np.arange(count), np.arange(count)[::-1])
    fade = np.clip((near - _QUIET * SAMPLE_RATE) / (SAMPLE_RATE / 10), 0, 1)
    return _at_level(samples[:count] * fade, _MUSIC_RMS)


@dataclass(frozen=True)
class Score:
    """How segments keep to what was said.

    Attributes:
        error_rate: Character errors of all segments' texts, each against the clips that it overlaps, over characters said.
        stray: Segments that have text and overlap no clip.
        lost: Clips that no segment overlaps.
        borders: Share of the segments' begins and ends that lie in a gap or within 0.3 s of one.
        covered: Share of the samples of speech that are in segments.
        left_out: Share of the samples between the clips that are in no segment.
    """

    error_rate: float
    stray: int
    lost: int
    borders: float
    covered: float
    left_out: float


def score(
    spoken: Sequence[Spoken], clips: Sequence[Clip], segments: Sequence[Segment], samples: int
) -> Score:
    """Compares. samples: Length of the recording."""
    speech, heard = np.zeros(samples, bool), np.zeros(samples, bool)
    for place in spoken:
        speech[place.begin : place.end] = True
    spans = [(round(part.start * SAMPLE_RATE), round(part.end * SAMPLE_RATE), part.text) for part in segments]
    errors = stray = 0
    found: set[int] = set()
    for begin, end, text in spans:
        heard[begin:end] = True
        inside = [number for number, place in enumerate(spoken) if place.begin < end and begin < place.end]
        stray += not inside and bool(text)
        # A clip in two segments counts for the one that has most of it.
        own = [
            number for number in inside if 2 * _common(spoken[number], begin, end) >= _length(spoken[number])
        ]
        found.update(own)
        errors += _edits(_bare("".join(clips[spoken[number].clip].text for number in own)), _bare(text))
    errors += sum(
        len(_bare(clips[place.clip].text)) for number, place in enumerate(spoken) if number not in found
    )
    count = sum(len(_bare(clips[place.clip].text)) for place in spoken)
    near = 3 * SAMPLE_RATE // 10
    edges = [edge for begin, end, _ in spans for edge in (begin, end)]
    good = sum(not speech[max(0, edge - near) : edge + near].all() for edge in edges)
    return Score(
        errors / max(1, count),
        stray,
        len(spoken) - len(found),
        good / max(1, len(edges)),
        float((speech & heard).sum() / max(1, speech.sum())),
        float((~speech & ~heard).sum() / max(1, (~speech).sum())),
    )


def clip_error_rate(clips: Sequence[Clip], texts: Sequence[Sequence[str]], spoken: Sequence[Spoken]) -> float:
    """Character error rate of the clips, recognized one by one, each as often as a recording has it.

    texts: Of each clip, what it was heard as; once, or several times (``in_room``), of which the mean counts.
    """
    errors = [
        sum(_edits(_bare(clip.text), _bare(text)) for text in heard) / len(heard)
        for clip, heard in zip(clips, texts)
    ]
    count = sum(len(_bare(clips[place.clip].text)) for place in spoken)
    return sum(errors[place.clip] for place in spoken) / max(1, count)


def _bare(text: str) -> str:
    return text.replace(" ", "")


def _edits(expected: str, heard: str) -> int:
    """Insertions, deletions and substitutions of characters."""
    if not expected or not heard:
        return len(expected) + len(heard)
    counts = extra("jiwer").process_characters(expected, heard)
    return int(counts.insertions + counts.deletions + counts.substitutions)


def _common(place: Spoken, begin: int, end: int) -> int:
    return min(place.end, end) - max(place.begin, begin)


def _length(place: Spoken) -> int:
    return place.end - place.begin
