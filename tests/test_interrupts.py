"""Ctrl-C, SIGTERM and SIGHUP at random moments of real processes: exit status, no traceback, nothing left over."""

from __future__ import annotations

import importlib.util
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import soundfile
from conftest import ROOT, run_python

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX")

SAMPLE = ROOT / "samples" / "phone-number-zh-TW.wav"
# The program's own first line: before it, a signal meets the interpreter's start, which no program decides about.
PROGRAM = "import sys, qwen3asr_native.cli as cli; cli.signals.leave_at_once(); print('begun', flush=True); cli.main()"


def start(*arguments: object, **variables: str) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
        env={**os.environ, **variables},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"begun\n"
    return process


def whole_run(*arguments: object) -> tuple[float, bytes]:
    begin = time.monotonic()
    process = start(*arguments)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return time.monotonic() - begin, output


@pytest.mark.parametrize("seed", range(4))
def test_ctrl_c_at_any_moment_ends_with_130_and_no_traceback(seed: int) -> None:
    command = ["transcribe", SAMPLE, SAMPLE]
    duration, expected = whole_run(*command)
    moments = random.Random(seed)
    for _ in range(5):
        delay = moments.uniform(0, duration)
        process = start(*command)
        time.sleep(delay)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)
        assert b"Traceback" not in errors, (delay, errors)
        assert b"Exception ignored" not in errors, (delay, errors)
        if process.returncode != 130:  # it came when everything was done
            assert (process.returncode, output) == (0, expected), (delay, errors)


def long_wav(folder: Path) -> Path:
    samples, rate = soundfile.read(SAMPLE, dtype="float32")
    path = folder / "long.wav"
    soundfile.write(path, np.tile(samples, 60), rate)
    return path


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_during_recognition_prints_what_there_is(number: int, status: int, tmp_path: Path) -> None:
    process = start("transcribe", "--chunk-seconds", 3, long_wav(tmp_path))
    assert process.stdout is not None
    begin = process.stdout.read(3)
    process.send_signal(number)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == status
    text = (begin + output).decode()
    assert text.startswith("零")
    assert text.endswith("\n")
    assert len(text) < 60 * 10
    assert b"Traceback" not in errors


def test_a_signal_while_standard_input_is_awaited_ends_the_program() -> None:
    process = start("transcribe", "-")
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    assert process.stderr is not None
    errors = process.stderr.read()
    assert b"Traceback" not in errors


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_no_temporary_audio(
    number: int, compile_library: Callable[[Path], Path], tmp_path: Path
) -> None:
    settings = tmp_path / "slow.bin"
    settings.write_text("fake model\nsteps 1000\ndelay_ms 20\n")
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    library = compile_library(ROOT / "tests" / "fake_libchatllm.c")
    process = start("transcribe", "--model", settings, "--library", library, SAMPLE, TMPDIR=str(temporary))
    assert process.stdout is not None
    process.stdout.read(5)
    assert sys.platform == "linux" or len(list(temporary.iterdir())) == 1  # on Linux it never has a name
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert list(temporary.iterdir()) == []
    assert b"Traceback" not in errors


def test_a_signal_that_is_ignored_from_outside_stays_ignored(tmp_path: Path) -> None:
    program = "import os, signal, sys; signal.signal(signal.SIGHUP, signal.SIG_IGN); os.execv(sys.executable, sys.argv[1:])"
    process = subprocess.Popen(
        [sys.executable, "-c", program, sys.executable, "-c", PROGRAM, "transcribe", SAMPLE],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"begun\n"
    process.send_signal(signal.SIGHUP)
    output, _ = process.communicate(timeout=60)
    assert (process.returncode, len(output.splitlines())) == (0, 1)


def test_a_signal_in_a_callback_of_libsndfile_is_not_lost() -> None:
    code = """
import io, os, signal, time
import numpy, soundfile
from qwen3asr_native.cli import signals

class File(io.BytesIO):
    def tell(self):
        if armed:
            armed.clear()
            os.kill(os.getpid(), signal.SIGINT)
        return super().tell()

armed = []
file = File()
soundfile.write(file, numpy.zeros(16000), 16000, format="WAV")
file.seek(0)
signals.listen()
armed.append(1)
try:
    soundfile.read(file)
    time.sleep(10)
except signals.Interrupted:
    print("interrupted", signals.status())
"""
    done = run_python(code)
    assert (done.stdout, done.stderr) == ("interrupted 130\n", "")


@pytest.mark.parametrize(
    "begin", ["Late()", "kept = {1}; watch = weakref.ref(kept, lambda _: kill()); del kept"]
)
def test_an_interrupt_in_a_finalizer_is_not_lost(begin: str) -> None:
    code = f"""
import os, signal, time, weakref
from qwen3asr_native.cli import signals

def kill():
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.01)

class Late:
    def __del__(self):
        kill()

signals.listen()
try:
    {begin}
    time.sleep(10)
except signals.Interrupted:
    print("interrupted", signals.status())
"""
    done = run_python(code)
    assert (done.stdout, done.stderr) == ("interrupted 130\n", "")


def _interrupt_tool() -> ModuleType:
    """tools/interrupt.py, which does the same for hours."""
    spec = importlib.util.spec_from_file_location("interrupt", ROOT / "tools" / "interrupt.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["interrupt"] = module  # where dataclasses look for it
    spec.loader.exec_module(module)
    return module


interrupt = _interrupt_tool()


@pytest.mark.parametrize("name", [scenario.name for scenario in interrupt.SCENARIOS])
def test_every_command_ends_in_order_at_a_random_moment(name: str, tmp_path: Path) -> None:
    scenario = next(scenario for scenario in interrupt.SCENARIOS if scenario.name == name)
    pytest.importorskip(scenario.needs)
    rehearsal = interrupt.Rehearsal(scenario, tmp_path)
    moments = random.Random(name)
    for _ in range(2):
        rehearsal.trial(tmp_path, moments)
