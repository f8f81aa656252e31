"""Memory: flat over repetitions, back after close."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from conftest import run_python

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="resident set from /proc")

_HEAD = """
import gc, sys
import numpy as np
import qwen3asr_native as q
from qwen3asr_native import assembly, audio, media, model, repair, stream  # modules stay, and are no part of a model

def resident():
    gc.collect()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 / 1e6

tone = (0.1 * np.sin(np.arange(16000) * 0.2)).astype(np.float32)

def transcribe(model):
    model.transcribe(tone, sample_rate=16000, max_new_tokens=20)
"""


def _measure(code: str, model_file: Path) -> list[float]:
    done = run_python(_HEAD + code, model_file, timeout=250)
    assert done.returncode == 0, done.stderr
    return [float(word) for word in done.stdout.split()]


def test_200_transcriptions_grow_by_less_than_2_mb(model_file: Path) -> None:
    (growth,) = _measure(
        """
model = q.Model(sys.argv[1])
for _ in range(20): transcribe(model)
before = resident()
for _ in range(200): transcribe(model)
print(resident() - before)
""",
        model_file,
    )
    assert growth < 2


def test_50_reinits_grow_by_less_than_2_mb(model_file: Path) -> None:
    (growth,) = _measure(
        """
model = q.Model(sys.argv[1])
for _ in range(5): model.reinit(); transcribe(model)
before = resident()
for _ in range(50): model.reinit(); transcribe(model)
print(resident() - before)
""",
        model_file,
    )
    assert growth < 2


def test_close_gives_the_memory_back(model_file: Path) -> None:
    loaded, closed = _measure(
        """
before = resident()
model = q.Model(sys.argv[1])
transcribe(model)
loaded = resident() - before
model.close()
print(loaded, resident() - before)
""",
        model_file,
    )
    assert closed < 10
    assert closed < loaded


def test_a_dropped_model_frees_everything(model_file: Path) -> None:
    (growth,) = _measure(
        """
for _ in range(5): transcribe(q.Model(sys.argv[1]))
before = resident()
for _ in range(30):
    model = q.Model(sys.argv[1])
    next(model.stream(tone, sample_rate=16000))
    del model
print(resident() - before)
""",
        model_file,
    )
    assert growth < 2


def test_no_thread_and_no_descriptor_is_left(model_file: Path) -> None:
    threads, files = _measure(
        """
import os
def count(): return len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd"))
q.Model(sys.argv[1]).close()
before = count()
for _ in range(10):
    with q.Model(sys.argv[1]) as model: transcribe(model)
after = count()
print(after[0] - before[0], after[1] - before[1])
""",
        model_file,
    )
    assert (threads, files) == (0, 0)
