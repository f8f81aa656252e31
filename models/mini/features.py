"""Log-mel features of the official Whisper feature extractor, without its 30-second padding."""

from __future__ import annotations

import numpy as np
from transformers.audio_utils import mel_filter_bank

WINDOW, HOP, MELS = 400, 160, 128
SHORTEST = 8_000  # samples: shorter input is zero-padded to half a second
_FILTERS = mel_filter_bank(WINDOW // 2 + 1, MELS, 0.0, 8000.0, 16_000, norm="slaney", mel_scale="slaney").T
_FILTERS = np.ascontiguousarray(_FILTERS, dtype=np.float32)
_HANN = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)).astype(np.float32)


def log_mel(samples: np.ndarray) -> np.ndarray:
    """float32 samples [n] at 16 kHz -> float32 [128, n // 160]."""
    if samples.size < SHORTEST:
        samples = np.pad(samples, (0, SHORTEST - samples.size))
    padded = np.pad(samples.astype(np.float32), WINDOW // 2, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP][: samples.size // HOP]
    power = np.abs(np.fft.rfft(frames * _HANN, axis=1)) ** 2
    mel = np.log10(np.maximum(_FILTERS @ power.T.astype(np.float32), 1e-10))
    return ((np.maximum(mel, mel.max() - 8.0) + 4.0) / 4.0).astype(np.float32)
