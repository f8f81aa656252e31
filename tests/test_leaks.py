"""The leak laboratory: planted defects are found, and what is no leak is not called one."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Callable

import numpy as np
import pytest
from conftest import ROOT

from qwen3asr_native import ArgumentError
from qwen3asr_native.lab import leaks
from qwen3asr_native.lab.measure import Growth, growth

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory from /proc")


@pytest.fixture(scope="session")
def library(compile_library: Callable[[Path], Path]) -> Path:
    return compile_library(ROOT / "tests" / "leaking_libchatllm.c")


@pytest.fixture
def examine(
    library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., dict[str, leaks.Run]]:
    """Examines the library with planted defects; the run of each way."""
    model = tmp_path / "any.bin"
    model.touch()

    def examine(
        way: str = "", repetitions: int = 25, timeout: float = 60.0, **defects: int
    ) -> dict[str, leaks.Run]:
        for name, value in defects.items():
            monkeypatch.setenv(name, str(value))
        ways = (way,) if way else leaks.WAYS
        report = leaks.examine(
            model, library=library, ways=ways, repetitions=repetitions, warmup=5, timeout=timeout
        )
        return {run.way: run for run in report.subjects[str(library)]}

    return examine


def test_a_steady_growth_has_a_narrow_interval() -> None:
    noise = np.random.default_rng(1).normal(size=200)
    fitted = growth(list(3.0 * np.arange(200) + noise))
    assert fitted is not None
    assert fitted.low < 3.0 < fitted.high
    assert fitted.high - fitted.low < 0.1


def test_a_single_step_anywhere_is_no_growth() -> None:
    for place in range(100):
        fitted = growth([0.0] * place + [1e7] * (100 - place))
        assert fitted is not None
        assert fitted.low <= 0


def test_noise_is_seldom_called_growth() -> None:
    generator = np.random.default_rng(2)
    walks = [growth(list(np.cumsum(generator.normal(size=60)))) for _ in range(400)]
    assert sum(walk is not None and walk.low > 0 for walk in walks) / 400 < 0.08  # 2.5 % in theory


def test_few_values_tell_nothing() -> None:
    assert growth([1.0] * 7) is None
    assert leaks.judge(None, 1.0) == "unclear"


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(-2, 0.5, "flat"), (0.1, 0.5, "flat"), (0.1, 1.5, "grows"), (2, 3, "grows"), (-0.1, 1.5, "unclear")],
)
def test_the_rule_of_the_verdict(low: float, high: float, verdict: str) -> None:
    assert leaks.judge(Growth((low + high) / 2, low, high), 1.0) == verdict


def test_a_module_in_the_working_folder_is_not_run(
    examine: Callable[..., dict[str, leaks.Run]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("json", "qwen3asr_native"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'was-run')!r}, 'w')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])  # as in the program qwen3asr
    assert examine("reuse", repetitions=6)["reuse"].verdict != "crashes"
    assert not (tmp_path / "was-run").exists()


def test_a_clean_library_is_flat(examine: Callable[..., dict[str, leaks.Run]]) -> None:
    # The busier the machine, the more it takes until the interval is narrow.
    for repetitions in (25, 75, 225):
        runs = examine(repetitions=repetitions)
        if all(run.verdict != "unclear" for run in runs.values()):
            break
    for run in runs.values():
        assert (run.verdict, run.findings, run.ending) == ("flat", [], "completed")
        assert len(run.samples) == repetitions


def test_a_leak_in_each_run_is_measured(examine: Callable[..., dict[str, leaks.Run]]) -> None:
    for run in examine(FAKE_LEAK_RUN=100_000).values():
        assert run.verdict == "grows"
        for name, called in (("uss", "USS"), ("malloc", "malloc's use")):
            fitted = run.quantities[name].growth
            assert fitted is not None
            assert fitted.slope == pytest.approx(100_000, rel=0.1)
            assert f"{called} grows by 0.10 MB a repetition" in run.findings


def test_a_leak_in_destroy_shows_where_things_are_destroyed(
    examine: Callable[..., dict[str, leaks.Run]],
) -> None:
    runs = examine(FAKE_LEAK_DESTROY=100_000)
    assert runs["recreate"].verdict == "grows"
    assert runs["reuse"].verdict == "flat"


def test_lost_descriptors_are_found(examine: Callable[..., dict[str, leaks.Run]]) -> None:
    for run in examine(FAKE_LEAK_FILES=1).values():
        assert run.verdict == "grows"
        assert run.quantities["uss"].verdict == "flat"
        assert run.findings == [
            "the number of descriptors grows by 1.00 a repetition",
            "25 descriptors stay after the last destroy",
        ]


def test_what_is_kept_once_is_no_growth(examine: Callable[..., dict[str, leaks.Run]]) -> None:
    run = examine("reuse", FAKE_ONCE=8_000_000)["reuse"]
    assert run.quantities["uss"].verdict == "unclear"
    stays = re.fullmatch(r"([\d.]+) MB stay after the last destroy", run.findings[0])
    assert stays is not None
    assert float(stays[1]) == pytest.approx(8.0, abs=0.5)
    assert len(run.findings) == 1
    assert run.verdict == "keeps"


def test_warm_up_is_kept_apart(examine: Callable[..., dict[str, leaks.Run]]) -> None:
    run = examine("reuse", FAKE_ONCE=2_000_000, FAKE_ONCE_AT=3)["reuse"]
    assert run.verdict == "flat"
    assert run.quantities["malloc"].warmup == pytest.approx(2_000_000, rel=0.1)


def test_a_crash_in_destroy_is_a_finding(examine: Callable[..., dict[str, leaks.Run]]) -> None:
    runs = examine(FAKE_ABORT_DESTROY=1)
    assert {run.verdict for run in runs.values()} == {"crashes"}
    assert "SIGABRT in 'destroy' of repetition 1" in runs["recreate"].findings[0]
    assert "double free" in runs["recreate"].findings[0]
    assert len(runs["reuse"].samples) == 25
    assert runs["reuse"].quantities["uss"].verdict == "flat"


def test_a_crash_at_the_end_of_the_process_is_a_finding(
    examine: Callable[..., dict[str, leaks.Run]],
) -> None:
    run = examine("reuse", repetitions=10, FAKE_ABORT_EXIT=1)["reuse"]
    assert run.verdict == "crashes"
    assert "when it ended, after the last destroy" in run.findings[0]
    assert run.after is not None


def test_a_library_that_hangs_is_ended(examine: Callable[..., dict[str, leaks.Run]]) -> None:
    run = examine("reuse", timeout=5, FAKE_HANG=2)["reuse"]
    assert run.verdict == "hangs"
    assert run.findings == ["no sign of life for 5 s in 'run' of repetition 2"]
    assert len(run.samples) == 1


def test_an_error_of_the_library_is_a_finding(
    compile_library: Callable[[Path], Path], tmp_path: Path
) -> None:
    model = tmp_path / "bad.bin"
    model.write_text("no model")
    fake = compile_library(ROOT / "tests" / "fake_libchatllm.c")
    report = leaks.examine(model, library=fake, ways=("reuse",), repetitions=10)
    (run,) = report.subjects[str(fake)]
    assert report.verdict == "fails"
    assert run.findings[0].startswith("'load' of repetition 1 fails: ")
    assert "this is no model" in run.findings[0]


def test_the_built_in_engine_does_not_grow(model_file: Path) -> None:
    report = leaks.examine(model_file, repetitions=30, max_new_tokens=8)
    for run in report.subjects["built-in engine"]:
        assert run.findings == []
        for name in ("malloc", "descriptors", "threads", "mapped_files"):
            assert run.quantities[name].verdict == "flat"
        assert run.kept_bytes is not None
        assert run.kept_bytes < leaks.MOST_KEPT_BYTES


def test_impossible_settings_are_named(tmp_path: Path) -> None:
    model = tmp_path / "any.bin"
    model.touch()
    for words, settings in (
        ("repetitions must be at least 1", {"repetitions": 0}),
        ("warm-up must be from 0 to 9", {"repetitions": 10, "warmup": 10}),
        ("no way 'sideways'", {"ways": ("sideways",)}),
        ("nothing to compare", {"compare": True}),
        ("missing.so' does not exist", {"library": tmp_path / "missing.so"}),
    ):
        with pytest.raises(ArgumentError, match=words):
            leaks.examine(model, **settings)  # type: ignore[arg-type]


def _command(*words: object) -> list[str]:
    return [sys.executable, "-m", "qwen3asr_native", "leaks", *map(str, words)]


def test_two_subjects_stand_side_by_side(
    library: Path, model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_LEAK_RUN", "100000")
    output, plot = tmp_path / "new" / "leaks.json", tmp_path / "leaks.png"
    options = ["-n", 20, "--way", "reuse", "--max-new-tokens", 8, "--output", output, "--plot", plot]
    done = subprocess.run(
        _command("--model", model_file, "--library", library, "--compare", *options),
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == f"The whole result is in {output}.\n"
    assert "\x1b" not in done.stdout
    header = next(line for line in done.stdout.splitlines() if library.name in line)
    assert "built-in engine" in header
    assert f"{library.name}, reuse: USS grows by 0.10 MB a repetition" in done.stdout
    result = json.loads(output.read_text())
    assert [len(runs) for runs in result["subjects"].values()] == [1, 1]
    assert len(result["subjects"][str(library)][0]["samples"]) == 20
    assert result["verdict"] == "grows"
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_ctrl_c_prints_what_was_measured(model_file: Path, tmp_path: Path) -> None:
    output = tmp_path / "leaks.json"
    process = subprocess.Popen(
        _command("--model", model_file, "-n", 100000, "--output", output),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
    )
    time.sleep(6)
    process.send_signal(signal.SIGINT)
    printed, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    assert b"Traceback" not in errors
    assert b"(interrupted)" in printed
    result = json.loads(output.read_text())
    assert result["interrupted"] is True
    assert result["subjects"]["built-in engine"][0]["samples"]
