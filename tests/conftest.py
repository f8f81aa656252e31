"""What the tests share: models, audio, a foreign library."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Callable

import numpy as np
import pytest

import qwen3asr_native
from qwen3asr_native.audio import Piece
from qwen3asr_native.engine import Options
from qwen3asr_native.files import hub
from qwen3asr_native.stream import Stream

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent
INCLUDE = ROOT / "chatllm.cpp" / "include"


@pytest.fixture(scope="session", autouse=True)
def _outside_the_root() -> None:
    """In the root, the interpreters that tests start would import the sources instead of what is installed."""
    os.chdir(ROOT / "tests")


@pytest.fixture(scope="session")
def golden() -> Path:
    """Reference outputs of the official code on a small random checkpoint; they lie beside a checkout, not in it."""
    path = ROOT.parent / "shared" / "golden"
    if not path.is_dir():
        pytest.skip("the reference outputs are not beside this checkout")
    return path


@pytest.fixture(scope="session")
def model_file() -> Path:
    return hub.built_in_model()


@pytest.fixture(scope="session")
def aligner_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A forced aligner with random weights: its times mean nothing, but obey every rule."""
    pytest.importorskip("safetensors")
    from qwen3asr_native.files.checkpoints import make_checkpoint
    from qwen3asr_native.files.convert import convert

    folder = tmp_path_factory.mktemp("aligner")
    source = make_checkpoint(folder / "hf", text={"vocab_size": 400}, aligner=True)
    return convert(source, folder / "aligner.bin", "q8_0")


@pytest.fixture(scope="module")
def model(model_file: Path) -> Iterator[qwen3asr_native.Model]:
    with qwen3asr_native.Model(model_file) as model:
        yield model


@pytest.fixture
def tone() -> np.ndarray:
    """One second of a quiet tone, 16 kHz."""
    return (0.1 * np.sin(np.arange(16000) * 0.2)).astype(np.float32)


@pytest.fixture
def endless(tone: np.ndarray) -> Callable[[qwen3asr_native.Model], Stream]:
    """Begins a stream that does not end by itself before thousands of tokens."""

    def begin(model: qwen3asr_native.Model) -> Stream:
        options = Options(max_new_tokens=4000, ignore_stop=True)
        return Stream(model._engine, iter([Piece(0, tone)]), options, None, False)

    return begin


@pytest.fixture(scope="session")
def compile_library(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Path]:
    """Makes a shared library from one C file."""

    def compile(source: Path) -> Path:
        compiler = shutil.which(os.environ.get("CC", "cc"))
        if compiler is None or os.name != "posix":
            pytest.skip("no C compiler for a foreign library")
        library = tmp_path_factory.mktemp("library") / f"lib{source.stem}.so"
        subprocess.run(
            [compiler, "-shared", "-fPIC", "-O1", f"-I{INCLUDE}", str(source), "-o", str(library)], check=True
        )
        return library

    return compile


def run_python(
    code: str, *arguments: object, timeout: float = 120, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Runs code in a fresh interpreter."""
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=timeout,
        env={**os.environ, **variables},
        check=False,
    )
