"""Log-mel features of the official Whisper feature extractor, without its 30-second padding."""

from __future__ import annotations

import numpy as np

WINDOW, HOP, MELS = 400, 160, 128
SHORTEST = 8_000  # samples: shorter input is zero-padded to half a second


def _filters() -> np.ndarray:
    """[128, 201]: triangles of equal area between 0 and 8 kHz, evenly spaced on Slaney's mel scale.

    The scale is linear up to 1 kHz (200/3 Hz a mel) and logarithmic above it (27 mels for a factor of 6.4).
    """
    mels = np.linspace(0, 15 + 27 * np.log(8) / np.log(6.4), MELS + 2)
    edges = np.where(mels < 15, 200 / 3 * mels, 1000 * np.exp((mels - 15) * np.log(6.4) / 27))
    frequencies, widths = np.linspace(0, 8000, WINDOW // 2 + 1), np.diff(edges)[:, None]
    rising = (frequencies - edges[:-2, None]) / widths[:-1]
    falling = (edges[2:, None] - frequencies) / widths[1:]
    triangles = np.maximum(0, np.minimum(rising, falling))
    return np.ascontiguousarray(triangles * (2 / (edges[2:] - edges[:-2]))[:, None], np.float32)


FILTERS = _filters()
HANN = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)).astype(np.float32)


def log_mel(samples: np.ndarray) -> np.ndarray:
    """float32 samples [n] at 16 kHz -> float32 [128, n // 160]."""
    if samples.size < SHORTEST:
        samples = np.pad(samples, (0, SHORTEST - samples.size))
    padded = np.pad(samples.astype(np.float32), WINDOW // 2, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP][: samples.size // HOP]
    power = np.abs(np.fft.rfft(frames * HANN, axis=1)) ** 2
    mel = np.log10(np.maximum(FILTERS @ power.T.astype(np.float32), 1e-10))
    return ((np.maximum(mel, mel.max() - 8.0) + 4.0) / 4.0).astype(np.float32)
