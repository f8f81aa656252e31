"""A thousand repetitions of the built-in model by each way: nothing grows, and close() gives the memory back."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from conftest import ROOT

from qwen3asr_native.lab import leaks

SPEECH = ROOT / "samples" / "phone-number-zh-TW.wav"


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.skipif(sys.platform != "linux", reason="memory from /proc")
@pytest.mark.parametrize("way", leaks.WAYS)
def test_nothing_grows(model_file: Path, way: str) -> None:
    report = leaks.examine(model_file, SPEECH, repetitions=1000, ways=(way,))
    (run,) = report.subjects["built-in engine"]
    assert (run.verdict, run.findings, len(run.samples)) == ("flat", [], 1000)
    fitted = run.quantities["uss"].growth
    assert fitted is not None
    assert leaks.amount("uss", fitted.slope) == "0.00 MB"
    assert run.kept_bytes is not None
    assert run.kept_bytes < 5e6
    for name in ("descriptors", "threads"):
        assert getattr(run.after, name) == getattr(run.before, name)
