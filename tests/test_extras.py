"""Without the packages of an extra, a command says in one sentence which one it needs and how to get it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

SAMPLE = ROOT / "samples" / "phone-number-zh-TW.wav"
# Runs the program as if these packages were not installed.
PROGRAM = """
import importlib.abc, sys
hidden = set(sys.argv[1].split(","))
class Hide(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in hidden:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Hide())
sys.argv = ["qwen3asr", *sys.argv[2:]]
from qwen3asr_native.cli import main
main()
"""


@pytest.mark.parametrize(
    ("hidden", "extra", "words"),
    [
        ("uvicorn", "server", ["serve", "--port", "0"]),
        ("starlette", "server", ["serve", "--port", "0"]),
        ("prometheus_client", "server", ["serve", "--port", "0"]),
        ("ray", "cluster", ["cluster", SAMPLE, "--output", "out"]),
        ("jiwer", "bench", ["bench", SAMPLE, "-n", "1"]),
        ("psutil", "bench", ["leaks", SAMPLE, "-n", "8"]),
        ("matplotlib", "bench", ["bench", SAMPLE, "-n", "1", "--plot", "speed.png"]),
        ("httpx", "bench", ["bench", SAMPLE, "--server", "http://127.0.0.1:1"]),
        ("sounddevice", "live", ["live"]),
    ],
)
def test_the_sentence_names_the_extra(hidden: str, extra: str, words: list[object], tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROGRAM, hidden, *map(str, words)]
    done = subprocess.run(
        command, capture_output=True, encoding="utf-8", cwd=tmp_path, timeout=120, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert hidden in done.stderr
    assert f"qwen3asr-native[{extra}]" in done.stderr
    assert "Traceback" not in done.stderr
