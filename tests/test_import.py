"""``import qwen3asr_native`` is light: what reads audio or draws tables comes when it is needed."""

from __future__ import annotations

import sys

import pytest
from conftest import run_python


def test_no_heavy_module_is_imported() -> None:
    code = """
import sys, qwen3asr_native
print([name for name in ("soundfile", "soxr", "typer", "rich", "opencc", "huggingface_hub") if name in sys.modules])
"""
    assert run_python(code).stdout.strip() == "[]"


@pytest.mark.skipif(sys.platform != "linux", reason="resident set from /proc")
def test_import_takes_less_than_150_ms_and_40_mb_beyond_numpy() -> None:
    code = """
import time, numpy
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 / 1e6
memory, begin = resident(), time.perf_counter()
import qwen3asr_native
print((time.perf_counter() - begin) * 1000, resident() - memory)
"""
    measured = [tuple(map(float, run_python(code).stdout.split())) for _ in range(5)]
    assert min(milliseconds for milliseconds, _ in measured) < 150
    assert min(megabytes for _, megabytes in measured) < 40


def test_everything_that_is_promised_is_there() -> None:
    import qwen3asr_native

    assert all(hasattr(qwen3asr_native, name) for name in qwen3asr_native.__all__)
