"""``qwen3asr doctor``: what works here, without a word about whose machine it is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

import qwen3asr_native
from qwen3asr_native.files import hub
from qwen3asr_native.files.checkpoints import make_checkpoint
from qwen3asr_native.files.convert import convert
from qwen3asr_native.lab import doctor


def run(*arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "qwen3asr_native", "doctor", *map(str, arguments)]
    environment = {**os.environ, **variables}
    return subprocess.run(
        command, capture_output=True, encoding="utf-8", env=environment, timeout=240, check=False
    )


def test_the_built_in_model_hears_the_sample_with_every_kernel_set() -> None:
    done = run("--json")
    report = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (0, "")
    trials = {trial["kernels"]: trial["verdict"] for trial in report["trials"]}
    assert trials == dict.fromkeys(qwen3asr_native.kernel_sets(), "as said")
    assert report["versions"]["package"] == qwen3asr_native.__version__
    assert report["engine"]["kernel_sets"] == list(qwen3asr_native.kernel_sets())
    assert "WAV" in report["audio"]["formats"]
    assert report["machine"]["usable_processors"] >= 1


def test_no_path_and_no_secret_is_shown_unless_asked_for(tmp_path: Path) -> None:
    home = tmp_path / "someone"
    (home / "qwen3asr").mkdir(parents=True)
    variables = {"HF_HOME": str(home), "HF_TOKEN": "hf_secret", "HOME": str(home)}
    for arguments in ([], ["--json"], ["--model", home / "nowhere.bin"]):
        done = run(*arguments, **variables)
        for private in ("someone", "hf_secret", str(tmp_path)):
            assert private not in done.stdout, arguments
    assert str(home) in run("--paths", **variables).stdout.replace("\n", "")


def test_a_random_model_runs_and_is_not_as_said(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path / "hf", text={"vocab_size": 400}, seed=3)
    model = convert(checkpoint, tmp_path / "m.bin", "q8_0")
    done = run("--json", "--model", model)
    report = json.loads(done.stdout)
    assert done.returncode == 1
    assert report["trials"][-1]["verdict"] == "not as said"
    assert any("kernels generic" in sentence for sentence in report["advice"])
    assert ".../m.bin" in report["trials"][-1]["model"]


def test_a_model_that_does_not_load_is_said(tmp_path: Path) -> None:
    (tmp_path / "m.bin").write_text("no model")
    done = run("--json", "--model", tmp_path / "m.bin")
    assert done.returncode == 1
    trial = json.loads(done.stdout)["trials"][-1]
    assert (trial["verdict"], str(tmp_path) in trial["error"]) == ("failed", False)


def test_a_damaged_download_is_found(tmp_path: Path) -> None:
    folder = tmp_path / "qwen3asr"
    folder.mkdir()
    file = hub.KNOWN_MODELS["qwen3-asr-0.6b-q4_0"].file
    (folder / str(file)).write_bytes(hub.built_in_model().read_bytes())
    report = json.loads(run("--json", HF_HOME=str(tmp_path)).stdout)
    row = next(row for row in report["models"] if row["name"] == "qwen3-asr-0.6b-q4_0")
    assert (row["checksum"], row["place"]) == ("wrong", "the cache")
    assert any("download it again" in sentence for sentence in report["advice"])


def test_the_sample_is_what_its_text_says() -> None:
    assert (ROOT / doctor.SAMPLE).with_suffix(".txt").read_text().strip() == doctor.SAMPLE_DIGITS


@pytest.mark.parametrize(
    ("sentence", "shown"),
    [
        ("'/home/someone/models/m.bin' is damaged", "'.../m.bin' is damaged"),
        (r"'C:\Users\someone\m.bin' is damaged", "'.../m.bin' is damaged"),
        ("'m.bin' is damaged", "'m.bin' is damaged"),
        ("a share of 1/2 is fine", "a share of 1/2 is fine"),
    ],
)
def test_folders_in_front_of_names_go(sentence: str, shown: str) -> None:
    assert doctor._without_home(sentence) == shown


def test_advice_follows_from_what_is_seen() -> None:
    report = doctor.examine()
    assert doctor._advice(report) == report["advice"]
    report["machine"].update(container_processors=1.0, usable_processors=8)
    report["audio"].update(pyav=None, ffmpeg=None)
    report["folders"]["cache"]["free_bytes"] = 1 << 20
    advice = "\n".join(doctor._advice(report))
    for words in ("--threads 1", "ffmpeg", "less than 2 GB"):
        assert words in advice
