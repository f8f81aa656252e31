"""The engine without Python, under valgrind and under LeakSanitizer: nothing is lost, nothing is read that is not there.

Needs CMake, a C++ compiler and, for the first, valgrind.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import INCLUDE, ROOT

ENGINE = ROOT / "chatllm.cpp"
C_API_TEST = ENGINE / "tests" / "capi_test.c"
REPETITIONS = 3

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(sys.platform != "linux", reason="valgrind and LeakSanitizer are for Linux"),
]


def _need(*programs: str) -> None:
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")


def _build(folder: Path, sanitizer: str) -> Path:
    """The engine's library, the program that repeats, and the C API test program where there is one."""
    _need("cmake", "cc")
    has_test = C_API_TEST.is_file()
    options = [f"-DCHATLLM_SANITIZE={sanitizer}", f"-DCHATLLM_TESTS={'ON' if has_test else 'OFF'}"]
    targets = ["chatllm", *(["capi_test", "make_model"] if has_test else [])]
    subprocess.run(["cmake", "-S", ENGINE, "-B", folder, "-DCMAKE_BUILD_TYPE=Release", *options], check=True)
    subprocess.run(["cmake", "--build", folder, "--parallel", "2", "--target", *targets], check=True)
    sanitize = [f"-fsanitize={sanitizer}"] if sanitizer else []
    program = [
        "-g",
        "-O1",
        "-Wall",
        "-Werror",
        *sanitize,
        f"-I{INCLUDE}",
        ROOT / "tests" / "slow" / "repeat.c",
    ]
    link = [f"-L{folder}", f"-Wl,-rpath,{folder}", "-lchatllm", "-lm", "-o", folder / "repeat"]
    subprocess.run(["cc", *program, *link], check=True)
    return folder


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    _need("valgrind")
    return _build(tmp_path_factory.mktemp("plain"), "")


@pytest.fixture(scope="module")
def sanitized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _build(tmp_path_factory.mktemp("sanitized"), "address")


def _run(*command: object, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        list(map(str, command)),
        capture_output=True,
        text=True,
        env={**os.environ, **variables},
        check=False,
    )


def _c_api_test(build: Path) -> list[object]:
    """The command of the C API test program, with its model made."""
    if not C_API_TEST.is_file():
        pytest.skip("there is no C API test program in this checkout")
    (maker,) = build.rglob("make_model")
    (program,) = build.rglob("capi_test")
    model = build / "capi.bin"
    subprocess.run([maker, model], check=True)
    return [program, model]


def _assert_nothing_lost(done: subprocess.CompletedProcess[str]) -> None:
    """valgrind's summary."""
    lost = re.search(r"definitely lost: ([\d,]+) bytes", done.stderr)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "All heap blocks were freed" in done.stderr or (lost and lost[1] == "0"), done.stderr
    assert "ERROR SUMMARY: 0 errors" in done.stderr, done.stderr


VALGRIND = ("valgrind", "--leak-check=full", "--show-leak-kinds=definite,possible", "--error-exitcode=9")
# For a program that forks: what the child cannot free, its threads being gone, is neither reported nor an error.
_FORKS = ("--child-silent-after-fork=yes", "--errors-for-leak-kinds=none")


@pytest.mark.parametrize("way", ["recreate", "reuse"])
def test_valgrind_finds_nothing_lost(plain: Path, model_file: Path, way: str) -> None:
    done = _run(*VALGRIND, plain / "repeat", model_file, way, REPETITIONS)
    _assert_nothing_lost(done)
    assert done.stdout == f"{4 * REPETITIONS}\n"


def test_valgrind_finds_nothing_lost_by_the_c_api_test(plain: Path) -> None:
    _assert_nothing_lost(_run(*VALGRIND, *_FORKS, *_c_api_test(plain)))


def test_valgrind_sees_a_planted_leak(tmp_path: Path) -> None:
    _need("valgrind", "cc")
    source = tmp_path / "leak.c"
    source.write_text(
        "#include <stdlib.h>\nvoid *volatile p; int main(void) { p = malloc(9); p = 0; return 0; }\n"
    )
    subprocess.run(["cc", "-g", source, "-o", tmp_path / "leak"], check=True)
    done = _run(*VALGRIND, tmp_path / "leak")
    assert done.returncode == 9
    assert "definitely lost: 9 bytes" in done.stderr


@pytest.mark.parametrize("way", ["recreate", "reuse"])
def test_leak_sanitizer_finds_nothing(sanitized: Path, model_file: Path, way: str) -> None:
    done = _run(sanitized / "repeat", model_file, way, 20, ASAN_OPTIONS="detect_leaks=1")
    assert (done.returncode, done.stdout, done.stderr) == (0, "80\n", "")


def test_leak_sanitizer_finds_nothing_in_the_c_api_test(sanitized: Path) -> None:
    done = _run(*_c_api_test(sanitized), ASAN_OPTIONS="detect_leaks=1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Sanitizer" not in done.stderr
