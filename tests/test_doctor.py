"""``qwen3asr doctor``: what works here, without a word about whose machine it is."""

from __future__ import annotations

import base64
import hashlib
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


@pytest.mark.parametrize("damage", [False, True])
def test_the_models_of_the_package_are_compared_with_what_was_installed(
    damage: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "qwen3asr_native"
    lines = []
    for name in ("built_in_model", "built_in_aligner"):
        content = getattr(hub, name)().read_bytes()
        path = package / "models" / getattr(hub, name)().name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        lines.append(f"{path.relative_to(tmp_path).as_posix()},sha256={digest},{len(content)}\n")
        monkeypatch.setattr(hub, name, lambda path=path: path)
    information = tmp_path / "qwen3asr_native-0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: qwen3asr-native\nVersion: 0\n")
    (information / "RECORD").write_text("".join(lines))
    monkeypatch.syspath_prepend(str(tmp_path))
    if damage:
        content = bytearray(hub.built_in_aligner().read_bytes())
        content[-1] ^= 1
        hub.built_in_aligner().write_bytes(content)
    report = doctor.examine()
    rows = {row["name"]: row for row in report["models"] if row["place"] == "the package"}
    assert rows[hub.BUILT_IN_NAME]["checksum"] == "right"
    assert rows[hub.BUILT_IN_ALIGNER_NAME]["checksum"] == ("wrong" if damage else "right")
    assert [line.split()[0] for line in report["advice"] if "install it again" in line] == (
        [hub.BUILT_IN_ALIGNER_NAME] if damage else []
    )


def test_the_weights_of_a_known_checkpoint_are_checked(tmp_path: Path) -> None:
    name = "Qwen3-ASR-0.6B-hf"
    (tmp_path / "qwen3asr").mkdir()
    make_checkpoint(tmp_path / "qwen3asr" / name, text={"vocab_size": 400})
    report = json.loads(run("--json", HF_HOME=str(tmp_path)).stdout)
    row = next(row for row in report["models"] if row["name"] == name)
    assert (row["state"], row["checksum"]) == ("a checkpoint", "wrong")


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
