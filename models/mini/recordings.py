"""Recordings and their features on the device: a whole batch of clips is cut, played, transmitted, disturbed and measured at once.

What ``speech.augment`` does to one clip with numpy, ``Recorder`` does to many with PyTorch, on any device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from . import corpus, speech
from .features import FILTERS, HANN, MELS, WINDOW
from .network import CHUNK
from .speech import MUSIC, NOISES, SAMPLE_RATE

BABBLE = "babble"
NOISE_SHARES = {"white": 0.26, "pink": 0.22, "brown": 0.14, "hum": 0.1, "crackle": 0.07, "tone": 0.05}
NOISE_SHARES.update({MUSIC: 0.09, BABBLE: 0.07})
BANK_SECONDS, BANK_VARIANTS = 30, 4
ROOM_SAMPLES = 10_000
PHONE_SHARE = 0.2
# Recorded at 8 kHz: no more high frequencies than on the telephone, but all low ones.
SLOW_SAMPLING_SHARE = 0.2
# The voice becomes quieter for a moment, as in a drawn-out vowel, which is still one.
DIP_SHARE = 0.25
# How far apart formants lie, by the frequencies of the filters; 1 more often than not. The pitch stays.
WARPS = (*np.linspace(0.88, 1.12, 9), *[1.0] * 9)


@dataclass(frozen=True)
class Clip:
    """One clip in the memory of the device."""

    start: int
    count: int
    language: str
    written: str
    times: tuple[tuple[str, float, float], ...]
    recognizer: bool
    corpus: str = ""


class Store:
    """All samples, int16 on the device; the clips of each corpus go to those who ask for them with ``listen``."""

    def __init__(self, device: torch.device, hours: float) -> None:
        self.samples = torch.zeros(int(hours * 3600 * SAMPLE_RATE), dtype=torch.int16, device=device)
        self.used = 0
        self.clips: list[Clip] = []
        self._listeners: list[Callable[[str, list[Clip]], None]] = []

    def listen(self, listener: Callable[[str, list[Clip]], None]) -> None:
        """Call ``listener`` with the name and the clips of every corpus that is added from now on."""
        self._listeners.append(listener)

    def add(self, name: str, directory: Path) -> bool:
        """Add the corpus in ``directory`` to those called ``name``; False when there is no more room."""
        samples, index = corpus.read(directory)
        if self.used + samples.size > self.samples.numel():
            return False
        self.samples[self.used : self.used + samples.size] = torch.from_numpy(np.array(samples)).to(
            self.samples.device
        )
        clips = [
            Clip(
                self.used + entry["offset"],
                entry["count"],
                entry["language"],
                entry["written"],
                tuple((unit, start, end) for unit, start, end in entry.get("times", ())),
                entry.get("recognizer", True),
                name,
            )
            for entry in index
            if entry["count"] >= 0.1 * SAMPLE_RATE
        ]
        self.used += samples.size
        self.clips += clips
        for listener in self._listeners:
            listener(name, clips)
        return True

    @property
    def hours(self) -> float:
        return self.used / SAMPLE_RATE / 3600


@dataclass
class Plan:
    """How the clips of a batch are recorded. K pieces make a clip, one behind the other; B clips make a batch."""

    starts: np.ndarray  # [K, B]: first sample in the store
    counts: np.ndarray  # [K, B]: samples; 0 where a clip has fewer pieces
    places: np.ndarray  # [K, B]: where the piece begins in the recording
    rates: np.ndarray  # [B]: how fast the recordings are played
    hops: np.ndarray  # [B]: samples between two frames; other than 160 it changes the tempo but not the voice
    lengths: np.ndarray  # [B]: samples
    silent: np.ndarray  # rows in which nobody speaks

    @property
    def frames(self) -> list[int]:
        return (self.lengths // self.hops).tolist()


class Recorder:
    """Makes recordings of the clips of ``store``, each time other ones."""

    def __init__(self, store: Store, seed: int) -> None:
        self.store, self.device = store, store.samples.device
        self.random = torch.Generator(self.device)
        self.random.manual_seed(seed)
        self.window = torch.from_numpy(HANN).to(self.device)
        bins = np.arange(FILTERS.shape[1])
        filters = [[np.interp(bins * warp, bins, row, right=0) for row in FILTERS] for warp in WARPS]
        self.filters = (
            torch.from_numpy(np.array(filters, np.float32)).transpose(1, 2).contiguous().to(self.device)
        )
        self.banks = self._noise_banks(seed)
        shares = [NOISE_SHARES[kind] for kind in (*NOISES, MUSIC, BABBLE)]
        self.noise_shares = torch.tensor(shares, device=self.device).repeat_interleave(BANK_VARIANTS)
        self._curves: dict[int, tuple[Tensor, Tensor, Tensor]] = {}

    def _noise_banks(self, seed: int) -> Tensor:
        """[2, noises, samples] of power 1: as they are, and through a telephone."""
        rng = np.random.default_rng([seed, 1])
        count = BANK_SECONDS * SAMPLE_RATE
        banks = [speech.noise(kind, count, rng) for kind in (*NOISES, MUSIC) for _ in range(BANK_VARIANTS)]
        clips = list(self.store.clips)
        for _ in range(BANK_VARIANTS):
            voices = np.zeros(count, np.float32)
            for _ in range(6 if clips else 0):
                at = 0
                while at < count:
                    clip = clips[rng.integers(len(clips))]
                    piece = self.store.samples[clip.start : clip.start + clip.count][: count - at]
                    voices[at : at + len(piece)] += piece.cpu().numpy() / np.float32(32768)
                    at += len(piece) + int(rng.integers(8000))
            banks.append(voices / max(float(np.sqrt(np.mean(voices**2))), 1e-9))
        narrow = [speech.telephone(bank, mu_law=False) for bank in banks]
        narrow = [bank / max(float(np.sqrt(np.mean(bank**2))), 1e-9) for bank in narrow]
        return torch.from_numpy(np.stack([np.stack(banks), np.stack(narrow)]).astype(np.float32)).to(
            self.device
        )

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(shape, generator=self.random, device=self.device)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.random, device=self.device)

    def tensor(self, values: np.ndarray | Sequence[int]) -> Tensor:
        tensor = torch.as_tensor(values)
        if self.device.type == "cuda":
            tensor = tensor.pin_memory()
        return tensor.to(self.device, non_blocking=True)

    @torch.no_grad()
    def features(self, plan: Plan) -> Tensor:
        """[B, 128, chunks * 100] log-mel features, 0 behind each clip's frames."""
        count = -(-int(plan.lengths.max()) // SAMPLE_RATE) * SAMPLE_RATE
        lengths = self.tensor(plan.lengths)
        time = torch.arange(count, device=self.device)
        inside = time < lengths[:, None]
        signal = self._play(plan, time)
        signal = signal * self._dips(lengths, time)
        signal = self._disturb(signal, inside) * inside
        if len(plan.silent):
            signal[self.tensor(plan.silent)] = self._noise_alone(len(plan.silent), count)
            signal = signal * inside
        signal = (signal.clamp(-1, 1) * 32767).round() / 32768
        return self._mask_patches(*self._log_mel(signal, lengths, plan))

    def _play(self, plan: Plan, time: Tensor) -> Tensor:
        rates = self.tensor(plan.rates.astype(np.float32))[:, None]
        signal = torch.zeros(len(plan.rates), len(time), device=self.device)
        for starts, counts, places in zip(plan.starts, plan.counts, plan.places):
            having = np.flatnonzero(counts)  # few clips have many pieces
            rows = self.tensor(having)
            start, length, place = (
                self.tensor(values[having])[:, None] for values in (starts, counts, places)
            )
            position = (time - place) * rates[rows]
            left = position.long()
            sounds = (position >= 0) & (left < length - 1)
            index = torch.where(sounds, start + left, 0)
            share = position - left
            first, second = self.store.samples[index].float(), self.store.samples[index + 1].float()
            signal.index_add_(0, rows, torch.where(sounds, first + (second - first) * share, 0))
        return signal / 32768

    def _dips(self, lengths: Tensor, time: Tensor) -> Tensor:
        """Level [batch, samples] with a dip of a tenth to four tenths of a second in every so many rows."""
        batch = len(lengths)
        place = self.uniform(0, 1, batch, 1) * lengths[:, None]
        width = self.uniform(0.03, 0.12, batch, 1) * SAMPLE_RATE
        depth = self.uniform(0.3, 0.9, batch, 1) * (self.uniform(0, 1, batch, 1) < DIP_SHARE)
        return 1 - depth * torch.exp(-((time - place) / width).square())

    def _frequency_curves(self, size: int) -> tuple[Tensor, Tensor, Tensor]:
        """Weights [7, bins] that spread seven levels over the bins of an FFT of ``size``; gain [bins] of the telephone and of 8 kHz."""
        if size not in self._curves:
            frequency = speech._frequencies(size)
            knots = np.log(np.geomspace(60, 8000, 7))
            weights = [np.interp(np.log(frequency + 30), knots, row) for row in np.eye(7)]
            half = (1 / (1 + (frequency / 3800) ** 40)).astype(np.float32)
            arrays = (np.stack(weights).astype(np.float32), speech._telephone_gain(frequency), half)
            self._curves[size] = tuple(torch.from_numpy(array).to(self.device) for array in arrays)  # type: ignore[assignment]
        return self._curves[size]

    def _rooms(self, batch: int) -> Tensor:
        """Impulse responses [batch, samples]: the direct sound, a few echoes, a decaying tail that gets duller."""
        length = SAMPLE_RATE * (
            0.05 + 0.55 * torch.minimum(self.uniform(0, 1, batch, 1), self.uniform(0, 1, batch, 1))
        )
        time = torch.arange(ROOM_SAMPLES, device=self.device) / length
        tail = self.normal(batch, ROOM_SAMPLES) * torch.exp(-6.9 * time) * (time < 1)
        dull = F.avg_pool1d(F.pad(tail[:, None], (7, 0)), 8, 1)[:, 0] * 8
        tail = tail * (1 - time.clamp(max=1)) + dull * time / 3
        response = tail * (
            self.uniform(0.1, 0.6, batch, 1) / tail.square().sum(1, keepdim=True).clamp(min=1e-9).sqrt()
        )
        echoes = 0.25 * self.normal(batch, 8) * (self.uniform(0, 1, batch, 8) < self.uniform(0, 1, batch, 1))
        response.scatter_add_(1, self.uniform(16, 640, batch, 8).long(), echoes)
        response[:, 0] = 1
        return response

    def _disturb(self, signal: Tensor, inside: Tensor) -> Tensor:
        """Microphone, room, telephone, noise, clipping, level."""
        batch, count = signal.shape
        chance = self.uniform(0, 1, 8, batch, 1)
        phone, slow = chance[0] < PHONE_SHARE, chance[0] > 1 - SLOW_SAMPLING_SHARE
        colored, roomy = phone | (chance[1] < 0.45), chance[2] < 0.3
        size = count + SAMPLE_RATE
        curves, telephone, half = self._frequency_curves(size)
        gain = 10 ** ((4 * self.normal(batch, 7)) @ curves / 20)
        gain = torch.where(phone, gain * telephone, gain)
        gain = torch.where(colored, gain, 1)
        spectrum = torch.fft.rfft(signal, size) * torch.where(slow, gain * half, gain)
        response = torch.fft.rfft(self._rooms(batch), size)
        spectrum = torch.where(roomy, spectrum * response, spectrum)
        signal = torch.fft.irfft(spectrum, size)[:, :count] * inside

        peak = signal.abs().amax(1, keepdim=True).clamp(min=1e-6)
        loud = (signal.abs() > 0.03 * peak) & inside
        power = (signal.square() * loud).sum(1, keepdim=True) / loud.sum(1, keepdim=True).clamp(min=1)
        narrow = ((phone & (chance[3] < 0.6)) | slow)[:, 0].long()
        kind = torch.multinomial(self.noise_shares, batch, True, generator=self.random)
        level = power.sqrt() * 10 ** (-self.uniform(8, 45, batch, 1) / 20) * (chance[4] < 0.55)
        # Other people are heard from further away.
        level = torch.where((kind >= BANK_VARIANTS * (len(NOISES) + 1))[:, None], level * 0.4, level)
        signal = signal + self._noise(kind, narrow, count) * level

        peak = signal.abs().amax(1, keepdim=True).clamp(min=1e-6)
        signal = signal / peak
        limit = self.uniform(0.15, 0.7, batch, 1)
        signal = torch.where(chance[5] < 0.06, signal.clamp(-limit, limit) / limit, signal)
        coded = (
            torch.sign(signal)
            * torch.expm1(
                torch.round(torch.log1p(255 * signal.abs()) * (127 / np.log(256))) * (np.log(256) / 127)
            )
            / 255
        )
        signal = torch.where(phone & (chance[6] < 0.5), coded, signal)
        return signal * 10 ** self.uniform(-1.6, -0.05, batch, 1)

    def _noise(self, kinds: Tensor, narrow: Tensor, count: int) -> Tensor:
        """Pieces [n, count] of the noises ``kinds`` [n]."""
        length = self.banks.shape[2]
        start = (self.uniform(0, 1, len(kinds)) * max(1, length - count)).long()
        index = (start[:, None] + torch.arange(count, device=self.device)) % length
        flat = (narrow * self.banks.shape[1] + kinds) * length
        return self.banks.view(-1)[flat[:, None] + index]

    def _noise_alone(self, rows: int, count: int) -> Tensor:
        """Recordings [rows, count] in which nobody speaks: silence, or a mixture of noises."""
        kinds = (len(NOISES) + 1) * BANK_VARIANTS  # all but babble
        signal = torch.zeros(rows, count, device=self.device)
        for layer in range(3):
            kind = (self.uniform(0, 1, rows) * kinds).long()
            noise = self._noise(kind, torch.zeros_like(kind), count) * self.uniform(0.05, 1, rows, 1)
            swell = F.interpolate(
                self.uniform(0, 1, rows, 1, 6), size=count, mode="linear", align_corners=True
            )[:, 0]
            noise = torch.where(self.uniform(0, 1, rows, 1) < 0.3, noise * swell, noise)
            signal += noise * (self.uniform(0, 1, rows, 1) < (1.0, 0.66, 0.33)[layer])
        signal = (
            signal
            / signal.abs().amax(1, keepdim=True).clamp(min=1e-6)
            * 10 ** self.uniform(-3.5, -0.1, rows, 1)
        )
        return signal * (self.uniform(0, 1, rows, 1) > 0.15)

    def _log_mel(self, signal: Tensor, lengths: Tensor, plan: Plan) -> tuple[Tensor, Tensor]:
        """``features.log_mel`` of each row with its own distance of frames; features and the mask of real frames."""
        batch, count = signal.shape
        frames = -(-max(plan.frames) // CHUNK) * CHUNK
        hops = self.tensor(plan.hops)
        place = torch.arange(frames, device=self.device) * hops[:, None] - WINDOW // 2
        index = (place[..., None] + torch.arange(WINDOW, device=self.device)).abs()
        last = (lengths - 1)[:, None, None]
        index = torch.where(index > last, 2 * last - index, index).clamp(0, count - 1)
        index += (torch.arange(batch, device=self.device) * count)[:, None, None]
        spectrum = torch.fft.rfft(signal.view(-1)[index] * self.window)
        power = spectrum.real.square() + spectrum.imag.square()
        warps = (self.uniform(0, 1, batch) * len(WARPS)).long()
        mel = (power @ self.filters[warps]).clamp(min=1e-10).log10()
        real = (torch.arange(frames, device=self.device) < (lengths // hops)[:, None])[..., None]
        highest = mel.masked_fill(~real, -10).amax((1, 2), keepdim=True)
        mel = (torch.maximum(mel, highest - 8) + 4) / 4
        return (mel * real).transpose(1, 2), real.transpose(1, 2)

    def _mask_patches(self, mel: Tensor, real: Tensor) -> Tensor:
        """SpecAugment: hide a band of up to 18 filters and a few spans of up to 8 frames."""
        batch, _, frames = mel.shape
        floor = mel.masked_fill(~real, 9).amin((1, 2), keepdim=True)
        band, frame = torch.arange(MELS, device=self.device), torch.arange(frames, device=self.device)
        low, width = self.uniform(0, 110, batch, 1).long(), self.uniform(0, 18, batch, 1).long()
        hidden = ((band >= low) & (band < low + width))[:, :, None]
        for _ in range(1 + frames // 300):
            first, width = self.uniform(0, frames, batch, 1).long(), self.uniform(0, 8, batch, 1).long()
            hidden = hidden | ((frame >= first) & (frame < first + width))[:, None]
        return torch.where(hidden & real, floor, mel)
