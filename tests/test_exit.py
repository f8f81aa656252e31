"""The interpreter ends while something is under way: no crash, no hang, nothing printed, and the exit status that was asked for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
from conftest import ROOT, run_python

BEGIN = f"""
import asyncio, atexit, gc, os, signal, sys, threading, time
import numpy as np
import qwen3asr_native
from qwen3asr_native import Aligner, Model
from qwen3asr_native.files import hub

path = {str(ROOT / "samples" / "phone-number-zh-TW.wav")!r}
sound = (0.1 * np.sin(np.arange(160000) * 0.2)).astype(np.float32)
hours = np.tile(sound, 60)
model = Model(hub.built_in_model())
options = dict(sample_rate=16000, segments="fixed", chunk_seconds=5)
working = threading.Event()

def work():
    while True:
        working.set()
        model.transcribe(path)

def begin(daemon, target=work):
    thread = threading.Thread(target=target, daemon=daemon)
    thread.start()
    working.wait()
    return thread
"""

# What is under way -> the program, its exit status, and what it prints.
CASES = {
    "a stream that nobody has read": ("stream = model.stream(hours, **options)", 0, ""),
    "a stream that is half read": ("stream = model.stream(hours, **options); next(stream)", 0, ""),
    "a stream in a cycle": (
        "stream = model.stream(hours, **options); next(stream); ring = [stream]; ring.append(ring); del stream",
        0,
        "",
    ),
    "many streams": (
        "streams = [model.stream(hours, **options) for _ in range(20)]; next(streams[7])",
        0,
        "",
    ),
    "an open live session": ("live = model.live(); live.feed(sound); live.feed(sound)", 0, ""),
    "a live session with a callback": (
        "live = model.live(on_update=lambda update: working.set()); live.feed(sound)",
        0,
        "",
    ),
    "a live session that another thread feeds": (
        "live = model.live()\ndef feed():\n    while True:\n        live.feed(sound); working.set()\nbegin(True, feed)",
        0,
        "",
    ),
    "a live session that is iterated": (
        "live = model.live()\nlive.feed(sound)\ndef read():\n    working.set()\n    for _ in live: pass\nbegin(True, read)",
        0,
        "",
    ),
    "a live session in an event loop": (
        """
live = model.live()
async def read():
    async for _ in live: pass
async def main():
    task = asyncio.create_task(read())
    live.feed(sound)
    await asyncio.sleep(0.05)
asyncio.run(main())
""",
        0,
        "",
    ),
    "recordings half read": (
        "many = model.transcribe_many([path] * 50); print(next(many).finish)",
        0,
        "stop\n",
    ),
    "recordings of an endless source": (
        "import itertools; many = model.transcribe_many(itertools.repeat(path)); print(next(many).finish)",
        0,
        "stop\n",
    ),
    "an aligner": (
        "aligner = Aligner(hub.built_in_aligner()); print(len(aligner.align(path, '零九')))",
        0,
        "2\n",
    ),
    "an aligner at work": (
        """
aligner = Aligner(hub.built_in_aligner())
def align():
    while True:
        working.set()
        aligner.align(path, '零九零零零七三三三一')
begin(True, align)
""",
        0,
        "",
    ),
    "words of a stream": (
        "stream = model.stream(hours, words=True, aligner=hub.built_in_aligner(), **options); next(stream)",
        0,
        "",
    ),
    "daemon threads that transcribe": ("threads = [begin(True) for _ in range(6)]", 0, ""),
    "a thread that transcribes to its end": (
        "begin(False, lambda: (working.set(), print(model.transcribe(path).finish)))",
        0,
        "stop\n",
    ),
    "a thread that ends itself": (
        "stream = model.stream(hours, **options)\ndef leave():\n    working.set(); next(stream); sys.exit(9)\nbegin(False, leave).join()",
        0,
        "",
    ),
    "an end with a status": ("begin(True); stream = model.stream(hours, **options); sys.exit(7)", 7, ""),
    "an end without goodbye": ("begin(True); stream = model.stream(hours, **options); os._exit(5)", 5, ""),
    "an end without goodbye of a thread": (
        "begin(True); begin(False, lambda: os._exit(6)); time.sleep(60)",
        6,
        "",
    ),
    "a function at exit that uses the model": (
        "atexit.register(lambda: print(model.transcribe(path).finish))",
        0,
        "stop\n",
    ),
    "a function at exit that closes the model": (
        "stream = model.stream(hours, **options); next(stream); atexit.register(model.close)",
        0,
        "",
    ),
    "a function at exit that loads another": (
        "atexit.register(lambda: print(Model(hub.built_in_model()).transcribe(path).finish))",
        0,
        "stop\n",
    ),
    "a function at exit that reads on": (
        "stream = model.stream(path); atexit.register(lambda: print(stream.finish().finish))",
        0,
        "stop\n",
    ),
    "a finalizer that uses the model": (
        """
class Late:
    def __del__(self):
        try:
            self.model.transcribe(sound, sample_rate=16000, max_new_tokens=1)
        except Exception: pass
late = Late(); late.model = model; sys.modules["late"] = late
""",
        0,
        "",
    ),
    "recordings half read that a module keeps": (
        "threading.kept = model.transcribe_many([path] * 100); next(threading.kept); print('stop')",
        0,
        "stop\n",
    ),
    "a collection that is switched off": (
        "gc.disable(); stream = model.stream(hours, **options); gc.freeze()",
        0,
        "",
    ),
    "a model that is being loaded": (
        "def load():\n    while True:\n        working.set(); Model(hub.built_in_model())\nthreads = [begin(True, load) for _ in range(3)]",
        0,
        "",
    ),
    "a model that is being closed": (
        "def close():\n    while True:\n        working.set(); model.reinit(); model.close()\nbegin(True, close)",
        0,
        "",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_end_of_the_interpreter_is_quiet_during(case: str) -> None:
    code, status, printed = CASES[case]
    done = run_python(BEGIN + code, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (status, printed, ""), case


def test_an_error_at_the_end_shows_itself_alone() -> None:
    done = run_python(
        BEGIN + "begin(True); stream = model.stream(hours, **options); next(stream); raise KeyError('mine')"
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "KeyError: 'mine'"
    assert done.stderr.count("Traceback") == 1


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
def test_a_signal_that_nobody_handles_ends_a_busy_process(number: int) -> None:
    # Heard once before: where another thread imports at that moment, Python may forget that it was SIGINT, and says 1.
    code = (
        BEGIN
        + "model.transcribe(path); begin(True); stream = model.stream(hours, **options); print('begun', flush=True)\n"
        "stream.finish()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    if number == signal.SIGINT:
        assert errors.splitlines()[-1] == "KeyboardInterrupt"
        assert errors.count("Traceback") == 1
    assert process.returncode == -number
