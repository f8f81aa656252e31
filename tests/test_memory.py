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


def test_under_a_limit_of_the_address_space_memory_is_an_error_and_nothing_worse(model_file: Path) -> None:
    done = run_python(
        """
import os, resource, sys
import numpy as np
import qwen3asr_native as q
from qwen3asr_native import assembly, audio, media, model, repair, stream
from qwen3asr_native.text import parse

sound = (0.1 * np.sin(np.arange(80000) * 0.2)).astype(np.float32)
used = int(open("/proc/self/statm").read().split()[0]) * 4096

def transcribe(megabytes):
    resource.setrlimit(resource.RLIMIT_AS, (used + int(megabytes * 1e6),) * 2)
    try:
        with q.Model(sys.argv[1], threads=2) as model:
            model.transcribe(sound, sample_rate=16000, max_new_tokens=5)
    except q.OutOfMemoryError:
        return 1
    except MemoryError:  # of Python
        return 1
    except BaseException as error:
        print(megabytes, repr(error), flush=True)
        return 3
    return 2

ends = []
for step in range(160):
    child = os.fork()
    if child == 0:
        os._exit(transcribe(step * 0.3))
    ends.append(os.waitpid(child, 0)[1])
    if os.WIFSIGNALED(ends[-1]) or os.WEXITSTATUS(ends[-1]) not in (1, 2):
        print(step * 0.3, ends[-1])
print(ends.count(1 << 8) > 5, ends.count(2 << 8) > 5)
""",
        model_file,
        timeout=250,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["True", "True"], done.stdout
