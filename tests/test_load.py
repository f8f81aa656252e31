"""``qwen3asr bench --server``: how a server bears its clients."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from conftest import ROOT

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("httpx")
from serving import serving

if TYPE_CHECKING:
    import qwen3asr_native

SAMPLE = ROOT / "samples" / "phone-number-zh-TW.wav"


def bench(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "qwen3asr_native", "bench", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_requests_are_counted_and_timed(
    model: qwen3asr_native.Model, model_file: Path, tmp_path: Path
) -> None:
    output = tmp_path / "load.json"
    with serving(model) as url:
        done = bench(
            "--server", url, "--concurrency", 3, "-n", 6, "--compare", "-m", model_file, "-o", output, SAMPLE
        )
    assert (done.returncode, done.stdout.count("6 in")) == (0, 1), done.stderr
    told: dict[str, Any] = json.loads(output.read_text(encoding="utf-8"))
    summary = told["summary"]
    assert (summary["requests"], summary["failed"], summary["errors"]) == (6, 0, {})
    for answer in told["answers"]:
        assert 0 < answer["first_seconds"] <= answer["seconds"]
        assert answer["audio_seconds"] == pytest.approx(4.996, abs=0.001)
    assert summary["audio_per_second"] == pytest.approx(6 * 4.996 / told["seconds"], rel=0.01)
    assert told["library_audio_per_second"] > 0
    assert summary["memory_most"] >= summary["memory_first"] > 1e7


def test_one_client_tells_what_the_server_adds_to_the_library(
    model: qwen3asr_native.Model, model_file: Path, tmp_path: Path
) -> None:
    output = tmp_path / "load.json"
    with serving(model, max_new_tokens=2) as url:
        done = bench(
            *("--server", url, "--concurrency", 1, "-n", 3, "--plain", "--compare", "--max-new-tokens", 2),
            *("-l", "zh", "-m", model_file, "-o", output, SAMPLE),
        )
    assert done.returncode == 0, done.stderr
    assert "the server adds" in done.stdout and "first event" not in done.stdout
    told: dict[str, Any] = json.loads(output.read_text(encoding="utf-8"))
    assert len(told["library_seconds"]) == 3 and told["summary"]["library"]["p50"] > 0
    assert told["summary"]["first_event"] is None and told["summary"]["failed"] == 0


def test_failures_are_told_and_decide_the_status(model: qwen3asr_native.Model, tmp_path: Path) -> None:
    with serving(model, max_upload=1000) as url:
        done = bench("--server", url, "-n", 2, "-o", tmp_path / "load.json", SAMPLE)
    assert done.returncode == 1
    assert "2 failed" in done.stdout and "status 413" in done.stdout


def test_a_server_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    done = bench("--server", "http://127.0.0.1:9", "-o", tmp_path / "load.json", SAMPLE)
    assert done.returncode == 1
    assert "http://127.0.0.1:9 does not answer" in done.stderr and "Traceback" not in done.stderr
