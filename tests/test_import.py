"""``import qwen3asr_native`` is light: what reads audio or draws tables comes when it is needed."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, run_python

import qwen3asr_native


def test_no_heavy_module_is_imported() -> None:
    code = """
import sys, qwen3asr_native
print([name for name in ("soundfile", "soxr", "click", "rich", "opencc", "huggingface_hub") if name in sys.modules])
"""
    assert run_python(code).stdout.strip() == "[]"


def test_the_list_of_commands_needs_no_heavy_module() -> None:
    code = """
import sys
from qwen3asr_native.cli.app import run
assert run(["--help"]) == 0
print([name for name in ("soundfile", "soxr", "rich", "opencc", "huggingface_hub", "asyncio") if name in sys.modules])
"""
    assert run_python(code).stdout.splitlines()[-1] == "[]"


def test_recognition_needs_no_event_loop(model_file: Path) -> None:
    code = f"""
import sys, qwen3asr_native
with qwen3asr_native.Model({str(model_file)!r}) as model:
    assert model.transcribe({str(ROOT / "samples" / "phone-number-zh-TW.wav")!r}).text
print([name for name in ("asyncio", "ssl", "rich", "opencc", "huggingface_hub", "multiprocessing") if name in sys.modules])
"""
    assert run_python(code).stdout.splitlines()[-1] == "[]"


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


@pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() != "x86_64", reason="the flags are in Linux's /proc/cpuinfo"
)
def test_the_kernels_are_those_that_the_operating_system_says_the_cpu_can_run() -> None:
    import qwen3asr_native

    flags = set(re.search(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)[1].split())
    needs = {
        "amx": {"amx_tile", "amx_bf16", "avx512_bf16", "avx512_vnni"},
        "avx512vnni": {"avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512_vnni"},
        "avxvnni": {"avx2", "fma", "f16c", "avx_vnni"},
        "avx512": {"avx512f", "avx512bw", "avx512vl", "avx512dq"},
        "avx2": {"avx2", "fma", "f16c"},
        "generic": set(),
    }
    kernels = qwen3asr_native.kernel_sets()
    # The system can refuse the registers of AMX to a process, so the flags alone do not promise those kernels.
    assert [name for name in kernels if name != "amx"] == [
        name for name, wanted in needs.items() if name != "amx" and wanted <= flags
    ]
    assert "amx" not in kernels or needs["amx"] <= flags


@pytest.mark.parametrize(
    ("old", "new"), [("convert", "files.convert"), ("hub", "files.hub"), ("bench", "lab.bench")]
)
def test_a_module_that_has_moved_is_found_by_its_old_name_with_a_warning(old: str, new: str) -> None:
    code = f"""
import sys, warnings, importlib
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    from qwen3asr_native import {old}
new = importlib.import_module("qwen3asr_native.{new}")
assert {old} is new, ({old}, new)
assert new.__spec__.name == "qwen3asr_native.{new}", new.__spec__
print([str(w.message) for w in said if w.category is DeprecationWarning])
"""
    assert f"qwen3asr_native.{old} has moved to qwen3asr_native.{new}" in run_python(code).stdout


@pytest.mark.parametrize("kind", ["isolated", "legacy"])  # with its own lock, and with that of the process
def test_a_subinterpreter_is_refused_in_a_sentence(kind: str) -> None:
    inside = "try:\n    import qwen3asr_native\nexcept ImportError as error:\n    print(error)"
    code = f"""
try:
    import _interpreters as interpreters
    other = interpreters.create({kind!r})
except ImportError:
    import _xxsubinterpreters as interpreters
    other = interpreters.create(isolated={kind == "isolated"})
interpreters.run_string(other, {inside!r})
interpreters.destroy(other)
"""
    done = run_python(code)
    assert (done.stdout.strip(), done.stderr) == (
        "qwen3asr_native does not work in a subinterpreter, as NumPy does not: use threads, which can share one Model, "
        "or processes",
        "",
    )


def test_sources_that_are_not_compiled_say_so(tmp_path: Path) -> None:
    shutil.copytree(
        Path(qwen3asr_native.__file__).parent,
        tmp_path / "qwen3asr_native",
        ignore=shutil.ignore_patterns("_native*", "__pycache__"),
    )
    # An editable installation would find the engine all the same.
    begin = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); "
        "sys.meta_path[:] = [finder for finder in sys.meta_path if 'editable' not in repr(finder)]"
    )
    for code in ("import qwen3asr_native; qwen3asr_native.Model", "from qwen3asr_native import kernel_sets"):
        done = subprocess.run(
            [sys.executable, "-c", f"{begin}; {code}"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 1
        assert done.stderr.splitlines()[-1].startswith(
            f"ImportError: '{tmp_path / 'qwen3asr_native'}' holds sources"
        )
