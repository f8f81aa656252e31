"""Time to first token is read where the token is made, whatever Python does meanwhile."""

from __future__ import annotations

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
        beginnings.append(token.elapsed_ms - first_token_ms)  # both from the engine's thread
    assert min(arrivals) >= 0
    assert min(arrivals) < 1.0  # at least once nobody else had the processor
    assert min(beginnings) >= 0
    assert min(beginnings) < 0.1


def test_the_clock_stays_right_when_python_is_busy(model: Model, tone: np.ndarray) -> None:
    begin = time.monotonic_ns()
    stream = model.stream(tone, sample_rate=16000, max_new_tokens=2)
    while not stream._ahead._ready[0][1].wait_end(0):  # Python turns in a loop until the engine is done
        pass
    done = time.monotonic_ns()
    time.sleep(0.05)
    token = next(stream)
    assert begin < token.time_ns < done
    busy = stream.finish().timings.first_token_ms
    assert busy is not None
    assert busy <= token.elapsed_ms < (done - begin) / 1e6


def test_stages_add_up(model: Model, tone: np.ndarray) -> None:
    timings = model.transcribe(tone, sample_rate=16000, max_new_tokens=20).timings
    assert timings.mel_ms is not None
    assert timings.encode_ms is not None
    assert timings.prefill_ms is not None
    assert timings.first_token_ms is not None
    assert timings.decode_ms is not None
    stages = timings.mel_ms + timings.encode_ms + timings.prefill_ms
    assert stages <= timings.first_token_ms + 0.1
    assert timings.first_token_ms + timings.decode_ms <= timings.total_ms + 0.1
