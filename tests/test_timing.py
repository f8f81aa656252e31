"""Time to first token is read where the token is made, whatever Python does meanwhile."""

from __future__ import annotations

import statistics
import sys
import time

import numpy as np
import pytest

from qwen3asr_native import Model

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="time.monotonic_ns() is CLOCK_MONOTONIC on Linux"
)


def test_the_clock_agrees_with_the_arrival_when_python_is_idle(model: Model, tone: np.ndarray) -> None:
    arrivals, beginnings = [], []
    for _ in range(25):
        with model.stream(tone, sample_rate=16000, max_new_tokens=2) as stream:
            token = next(stream)
            arrivals.append((time.monotonic_ns() - token.time_ns) / 1e6)
            first_token_ms = stream.finish().timings.first_token_ms
        assert first_token_ms is not None
        beginnings.append(token.time_ms - first_token_ms)  # both from the engine's thread
    assert min(arrivals) >= 0
    assert statistics.median(arrivals) < 1.0
    assert min(beginnings) >= 0
    assert statistics.median(beginnings) < 0.1


def test_the_clock_stays_right_when_python_is_busy(model: Model, tone: np.ndarray) -> None:
    idle = model.transcribe(tone, sample_rate=16000, max_new_tokens=2).timings.first_token_ms
    assert idle is not None
    begin = time.monotonic_ns()
    stream = model.stream(tone, sample_rate=16000, max_new_tokens=2)
    busy_until = begin + int((1000 + 20 * idle) * 1e6)
    while time.monotonic_ns() < busy_until:
        pass
    token = next(stream)
    assert time.monotonic_ns() >= busy_until
    assert begin < token.time_ns < busy_until - 500_000_000
    busy = stream.finish().timings.first_token_ms
    assert busy is not None
    assert busy <= token.time_ms < 500 + 20 * idle


def test_stages_add_up(model: Model, tone: np.ndarray) -> None:
    timings = model.transcribe(tone, sample_rate=16000, max_new_tokens=20).timings
    assert timings.mel_ms is not None
    assert timings.encode_ms is not None
    assert timings.prefill_ms is not None
    assert timings.first_token_ms is not None
    assert timings.decode_ms is not None
    stages = timings.mel_ms + timings.encode_ms + timings.prefill_ms
    assert stages <= timings.first_token_ms + 0.1
    assert timings.first_token_ms + timings.decode_ms == pytest.approx(timings.total_ms, abs=2.0)
