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
    delays = []
    for _ in range(15):
        with model.stream(tone, sample_rate=16000, max_new_tokens=2) as stream:
            token = next(stream)
            delays.append((time.monotonic_ns() - token.time_ns) / 1e6)
            assert stream.finish().timings.first_token_ms == pytest.approx(token.time_ms, abs=1.0)
    assert min(delays) >= 0
    assert statistics.median(delays) < 1.0


def test_the_clock_stays_right_when_python_is_busy(model: Model, tone: np.ndarray) -> None:
    idle = model.transcribe(tone, sample_rate=16000, max_new_tokens=2).timings.first_token_ms
    assert idle is not None
    begin = time.monotonic_ns()
    stream = model.stream(tone, sample_rate=16000, max_new_tokens=2)
    until = begin + int((1000 + 10 * idle) * 1e6)
    while time.monotonic_ns() < until:
        pass
    token = next(stream)
    assert time.monotonic_ns() >= until
    assert begin < token.time_ns < until - 500_000_000
    assert stream.finish().timings.first_token_ms == pytest.approx(token.time_ms, abs=1.0)


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
