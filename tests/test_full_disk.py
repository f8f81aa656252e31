"""Every command that writes, on a disk that is full, in a folder that may not be written, with a limit of file sizes."""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from conftest import ROOT
from test_interrupts import interrupt

from qwen3asr_native import Qwen3AsrError, cluster

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="disks are told to be full as on Linux")

SAMPLE = ROOT / "samples" / "phone-number-zh-TW.wav"
SCENARIOS = {scenario.name: scenario for scenario in interrupt.SCENARIOS}
# Those that write files, and those that write a file when they are asked to.
WRITE = [
    "completion", "transcribe to files", "live to a file", "convert", "quantize", "bench", "bench with a plot", "leaks",
    "transcribe to a file",
]  # fmt: skip
SCENARIOS["bench with a plot"] = interrupt.Scenario(
    "bench with a plot",
    lambda folder: ["bench", "-n", 1, "--output", folder / "r.json", "--plot", folder / "plot.png", SAMPLE],
)
SCENARIOS["transcribe to a file"] = interrupt.Scenario(
    "transcribe to a file", lambda folder: ["transcribe", "--output", folder / "text.srt", SAMPLE]
)
FULL = ("No space left on device", "the disk is full", "no temporary file can be written")
SPEAK = [
    "help", "version", "transcribe", "live", "align", "info", "itn", "models", "doctor", "transcribe words",
]  # fmt: skip


def run(
    name: str, folder: Path, *, stdout: int = subprocess.PIPE, **options: object
) -> subprocess.CompletedProcess[str]:
    scenario = SCENARIOS[name]
    environment = {**os.environ, **scenario.environment(folder), **options.pop("env", {})}  # type: ignore[call-overload]
    return subprocess.run(
        [sys.executable, "-m", "qwen3asr_native", *map(str, scenario.arguments(folder))],
        input=scenario.given.decode("utf-8", "surrogateescape"),
        encoding="utf-8",
        errors="surrogateescape",
        stdout=stdout,
        stderr=subprocess.PIPE,
        env=environment,
        timeout=120,
        check=False,
        **options,  # type: ignore[call-overload]
    )


def fails_in_a_sentence(done: subprocess.CompletedProcess[str], *reasons: str) -> None:
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    said = [line for line in done.stderr.splitlines() if any(reason in line for reason in reasons)]
    assert len(said) == 1, done.stderr


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="session")
def full_disk(compile_library: Callable[[Path], Path]) -> Path:
    return compile_library(ROOT / "tests" / "full_disk.c")


@pytest.mark.parametrize("room", [0, 7])
@pytest.mark.parametrize("name", WRITE)
def test_a_full_disk_is_said_and_leaves_no_part_of_a_file(
    name: str, room: int, full_disk: Path, tmp_path: Path
) -> None:
    SCENARIOS[name].prepare(tmp_path)
    before = files(tmp_path)
    done = run(name, tmp_path, env={"LD_PRELOAD": str(full_disk), "ROOM": str(room)})
    fails_in_a_sentence(done, *FULL)
    assert files(tmp_path) == before


@pytest.mark.parametrize("name", WRITE)
def test_a_limit_of_file_sizes_is_said_and_leaves_no_part_of_a_file(name: str, tmp_path: Path) -> None:
    import resource

    SCENARIOS[name].prepare(tmp_path)
    before = files(tmp_path)
    done = run(name, tmp_path, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10)))
    fails_in_a_sentence(done, "File too large", "no temporary file", "tone.wav")
    assert files(tmp_path) == before


def as_anybody() -> None:
    """Root obeys the rights of files, too, without CAP_DAC_OVERRIDE; others have no such right to lose."""
    libc = ctypes.CDLL(None)
    for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
        libc.prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP


@pytest.mark.parametrize("name", WRITE)
def test_a_folder_that_may_not_be_written_is_said(name: str, tmp_path: Path) -> None:
    SCENARIOS[name].prepare(tmp_path)
    before = files(tmp_path)
    tmp_path.chmod(0o555)
    try:
        done = run(name, tmp_path, preexec_fn=as_anybody)
    finally:
        tmp_path.chmod(0o755)
    fails_in_a_sentence(done, "Permission denied")
    assert files(tmp_path) == before


@pytest.mark.parametrize("name", SPEAK)
def test_a_full_disk_under_standard_output_is_said(name: str, tmp_path: Path) -> None:
    SCENARIOS[name].prepare(tmp_path)
    with open("/dev/full", "w") as full:  # a device, which stays as it is
        done = run(name, tmp_path, stdout=full.fileno())
    fails_in_a_sentence(done, *FULL)


@pytest.mark.parametrize("name", ["transcribe", "help", "doctor"])
def test_a_full_disk_under_standard_error_is_no_crash(name: str, tmp_path: Path) -> None:
    scenario = SCENARIOS[name]
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "qwen3asr_native", *map(str, scenario.arguments(tmp_path))],
            stdout=subprocess.PIPE,
            stderr=full,
            encoding="utf-8",
            timeout=120,
            check=False,
        )
    assert done.returncode in (0, 1)


def test_a_checkpoint_that_finds_no_room_for_its_copy_is_said(full_disk: Path, tmp_path: Path) -> None:
    SCENARIOS["convert"].prepare(tmp_path)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "qwen3asr_native", "transcribe", "--model", str(tmp_path / "hf"), str(SAMPLE)],
        capture_output=True,
        text=True,
        env={**os.environ, "LD_PRELOAD": str(full_disk), "ROOM": "100000", "TMPDIR": str(temporary)},
        check=False,
    )
    fails_in_a_sentence(done, *FULL)
    with contextlib.suppress(FileNotFoundError):
        assert files(temporary) == {}


_SHARD = """
import sys
from dataclasses import asdict
from qwen3asr_native.cluster.batch import _Worker
from qwen3asr_native.cluster.shards import Shard
worker = _Worker(None, 1, sys.argv[1], "jsonl", "token", {})
print(worker({"shard": [asdict(Shard("part", (sys.argv[2],)))]})["reason"][0])
"""


def test_a_full_disk_under_a_shard_of_a_cluster_is_its_reason(full_disk: Path, tmp_path: Path) -> None:
    for room, reason in ((7, f"'{tmp_path}': No space left on device"), (1 << 20, "")):
        done = subprocess.run(
            [sys.executable, "-c", _SHARD, str(tmp_path), str(SAMPLE)],
            capture_output=True,
            text=True,
            env={**os.environ, "LD_PRELOAD": str(full_disk), "ROOM": str(room)},
            check=True,
        )
        assert done.stdout.rstrip("\n") == reason
        assert list(files(tmp_path)) == ([] if reason else ["part.jsonl"])


def test_the_directory_of_a_cluster_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    (tmp_path / "file").write_text("")
    with pytest.raises(Qwen3AsrError, match="cannot be made: Not a directory"):
        cluster.transcribe([SAMPLE], tmp_path / "file" / "out")
