"""The commands for model files, and checkpoints that are loaded as they are."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from qwen3asr_native import ArgumentError, ConversionError, Model, ModelFileError
from qwen3asr_native.cli.app import COMMANDS
from qwen3asr_native.files import hub
from qwen3asr_native.files.checkpoints import make_checkpoint
from qwen3asr_native.files.convert import convert
from qwen3asr_native.files.ggmm import GgmmFile
from qwen3asr_native.files.quantization import TensorType


def qwen3asr(*arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "qwen3asr_native", *map(str, arguments)]
    environment = {**os.environ, **variables}
    return subprocess.run(
        command, capture_output=True, encoding="utf-8", env=environment, timeout=120, check=False
    )


def assert_fails(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.splitlines()) == 1, done.stderr
    for word in ("qwen3asr: ", *words):
        assert word in done.stderr


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoints") / "small"
    return make_checkpoint(folder, text={"vocab_size": 512}, seed=3)


def kinds(path: Path) -> dict[str, TensorType]:
    with GgmmFile(path) as file:
        return {name: tensor.kind for name, tensor in file.tensors.items()}


def test_convert_writes_a_model_and_prints_its_path(checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "small.bin"
    done = qwen3asr("convert", checkpoint, out, "--type", "q8_0")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{out}\n", "")
    with Model(out) as model:
        assert model.info["tensor_type"].lower() == "q8_0"
    assert list(tmp_path.iterdir()) == [out]


def test_convert_is_chatllms_converter_to_the_byte(golden: Path, tmp_path: Path) -> None:
    for kind in ("f16", "q8_0", "q4_0", "q4_1", "q4_k"):
        out = tmp_path / f"tiny-{kind}.bin"
        assert qwen3asr("convert", golden / "tiny-hf", out, "--type", kind, "--name", "tiny").returncode == 0
        assert out.read_bytes() == (golden / out.name).read_bytes()


def test_tensor_types_are_pairs_and_the_first_match_wins(checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.bin"
    rules = ["--tensor-type", "lm_head.*", "q8_0", "--tensor-type", "*", "f16"]
    assert qwen3asr("convert", checkpoint, out, *rules).returncode == 0
    assert kinds(out)["lm_head.weight"] is TensorType.Q8_0
    assert kinds(out)["model.embed_tokens.weight"] is TensorType.F16


def test_quantize_equals_converting(checkpoint: Path, tmp_path: Path) -> None:
    half, small, direct = (tmp_path / name for name in ("half.bin", "small.bin", "direct.bin"))
    rules = ["--tensor-type", "lm_head.*", "q8_0"]
    assert qwen3asr("convert", checkpoint, half, "--type", "f32", "--name", "n").returncode == 0
    assert qwen3asr("quantize", half, small, "--type", "q4_0", *rules).returncode == 0
    assert qwen3asr("convert", checkpoint, direct, "--type", "q4_0", "--name", "n", *rules).returncode == 0
    assert small.read_bytes() == direct.read_bytes()


def test_wrong_input_is_one_sentence(checkpoint: Path, tmp_path: Path, model_file: Path) -> None:
    out = tmp_path / "m.bin"
    assert_fails(qwen3asr("convert", tmp_path / "nowhere", out), "nowhere", "directory")
    assert_fails(qwen3asr("convert", tmp_path, out), "config.json")
    assert_fails(qwen3asr("convert", checkpoint, out, "--type", "q3_x"), "'q3_x'", "q4_0")
    assert_fails(qwen3asr("convert", checkpoint, out, "--tensor-type", "*", "int9"), "'int9'")
    done = qwen3asr("convert", checkpoint, out, "--tensor-type", "*")
    assert (done.returncode, "'--tensor-type' requires 2 arguments" in done.stderr) == (2, True)
    assert_fails(qwen3asr("quantize", checkpoint / "config.json", out), "not a GGMM model file")
    assert not out.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize("command", ["convert", "quantize"])
def test_an_interruption_leaves_nothing_that_looks_finished(command: str, how: int, tmp_path: Path) -> None:
    source = make_checkpoint(tmp_path / "hf", text={"vocab_size": 40_000, "num_hidden_layers": 8}, seed=3)
    if command == "quantize":
        source = convert(source, tmp_path / "source.bin", "f16")
    out = tmp_path / "out" / "m.bin"
    out.parent.mkdir()
    out.write_bytes(b"an older file")
    with subprocess.Popen(
        [sys.executable, "-m", "qwen3asr_native", command, str(source), str(out), "--type", "q4_k"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    ) as process:
        deadline = time.monotonic() + 60
        while not any(tmp_path.glob("out/.*")) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
        assert process.poll() is None, "it ended before it could be interrupted"
        process.send_signal(how)
        output, errors = process.communicate(timeout=60)
    assert output == ""
    assert out.read_bytes() == b"an older file"
    if how == signal.SIGINT:
        assert (process.returncode, errors) == (130, f"qwen3asr: interrupted; '{out}' was not written\n")
        assert list(out.parent.iterdir()) == [out]
    else:
        assert (process.returncode, errors) == (-signal.SIGKILL, "")


def test_models_lists_what_is_known_and_what_is_here(tmp_path: Path) -> None:
    home = {"HF_HOME": str(tmp_path)}
    done = qwen3asr("models", "--json", **home)
    rows = {row["name"]: row for row in map(json.loads, done.stdout.splitlines())}
    assert list(rows) == [hub.BUILT_IN_NAME, hub.BUILT_IN_ALIGNER_NAME, *hub.KNOWN_MODELS]
    assert rows["qwen3-asr-0.6b-q4_0"]["bytes"] == 538_868_432
    assert rows["qwen3-asr-0.6b-q4_0"]["path"] is None
    assert all(row["licence"] == "Apache-2.0" for row in rows.values())
    file = hub.KNOWN_MODELS["qwen3-asr-1.7b-q4_0"].file
    (tmp_path / "qwen3asr").mkdir()
    (tmp_path / "qwen3asr" / str(file)).write_bytes(b"12345")
    done = qwen3asr("models", **home)
    line = next(line for line in done.stdout.splitlines() if line.startswith("qwen3-asr-1.7b-q4_0"))
    assert " 5 " in line
    assert "Luigi/Qwen3-ASR-0.6B-chatllm-quantized" in line


def test_a_checkpoint_directory_loads_as_the_converted_file_does(
    checkpoint: Path, tmp_path: Path, tone: np.ndarray
) -> None:
    out = tmp_path / "m.bin"
    assert qwen3asr("convert", checkpoint, out, "--type", "q4_0").returncode == 0
    with (
        Model(out, kernels="generic") as converted,
        Model(checkpoint, dtype="q4_0", kernels="generic") as direct,
    ):
        assert direct.info["tensor_type"] == converted.info["tensor_type"]
        assert np.array_equal(direct.prefill_logits((tone, 16000)), converted.prefill_logits((tone, 16000)))


def test_the_copy_of_a_checkpoint_lives_as_long_as_its_model(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    model = Model(checkpoint)
    assert model.info["tensor_type"].lower() == "q8_0"
    model.reinit()
    assert len(list(tmp_path.iterdir())) == 1
    del model
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_that_cannot_be_used_leaves_nothing(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ConversionError, match=r"vocab\.json"):
        Model(tmp_path)
    with pytest.raises(ConversionError, match="q9"):
        Model(checkpoint, dtype="q9")
    assert list((tmp_path / "temporary").iterdir()) == []


def test_without_the_libraries_the_sentence_says_what_to_install(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(ConversionError, match=r"pip install 'qwen3asr-native\[convert\]'"):
        Model(checkpoint)


def test_a_model_file_has_its_type_already(model_file: Path) -> None:
    with pytest.raises(ArgumentError, match="dtype"):
        Model(model_file, dtype="q4_0")


def test_a_checkpoint_directory_is_transcribed_as_the_type_that_is_asked_for(
    checkpoint: Path, tmp_path: Path, tone: np.ndarray
) -> None:
    wav, out = tmp_path / "tone.wav", tmp_path / "m.bin"
    soundfile.write(wav, tone, 16000)
    assert qwen3asr("convert", checkpoint, out, "--type", "q4_1").returncode == 0
    options = ["--json", "--kernels", "generic", "--max-new-tokens", 8, wav]

    def tokens(*model: object) -> list[tuple[int, float]]:
        done = qwen3asr("transcribe", "--model", *model, *options)
        assert done.returncode == 0
        return [(token["id"], token["logprob"]) for token in json.loads(done.stdout)["tokens"]]

    assert tokens(checkpoint, "--dtype", "q4_1") == tokens(out) != tokens(checkpoint)
    assert_fails(qwen3asr("transcribe", "--model", out, "--dtype", "q4_1", wav), "dtype", "checkpoint")
    assert_fails(qwen3asr("transcribe", "--model", checkpoint, "--dtype", "q9", wav), "'q9'", "q8_0")


def test_a_forced_aligner_is_described_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = make_checkpoint(tmp_path / "Qwen3-ForcedAligner", text={"vocab_size": 400}, aligner=True)
    out = tmp_path / "aligner.bin"
    assert qwen3asr("convert", source, out, "--type", "q8_0").returncode == 0
    described = json.loads(qwen3asr("info", "--json", out).stdout)
    assert (described["purpose"], described["name"]) == ("ForcedAligner", "Qwen3-ForcedAligner")
    assert (described["vocab_size"], described["tensor_type"]) == (400, "q8_0")
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    for model in (out, source):
        with pytest.raises(ModelFileError, match=r"forced aligner.* use a Qwen3-ASR model") as caught:
            Model(model)
        assert f"'{model}'" in str(caught.value)
    assert list((tmp_path / "temporary").iterdir()) == []


def test_the_help_lists_every_command_and_where_settings_come_from() -> None:
    done = qwen3asr("--help", TERM="dumb", COLUMNS="200")
    assert done.returncode == 0
    listed = done.stdout.partition("Commands:")[2].partition("Examples:")[0]
    assert [line.split()[0] for line in listed.splitlines() if line.strip()] == list(COMMANDS)
    for name in ("HF_HOME", "HF_HUB_OFFLINE", "INFERENCE_THREADS", "130"):
        assert name in done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_with_examples_that_it_takes(command: str) -> None:
    done = qwen3asr(command, "--help", TERM="dumb", COLUMNS="200")
    assert (done.returncode, done.stderr) == (0, "")
    options, _, rest = done.stdout.partition("Examples:")
    examples, _, statuses = rest.partition("Exit status:")
    known = [line.split()[0] for line in statuses.splitlines() if re.match(r"\s*\d", line)]
    assert known == ["0", "1", "2", "130"]
    lines = [line.partition("#")[0].strip() for line in examples.splitlines() if line.strip()]
    assert lines
    known = set(re.findall(r"(?<!\S)--?[a-z-]+", options))
    for line in lines:
        words = shlex.split(line)
        words = words[words.index("qwen3asr") + 1 :]  # what comes before a pipe is another program's
        assert words[0] == command
        assert {word for word in words if word.startswith("-") and word != "-"} <= known, line


@pytest.mark.skipif(sys.platform == "win32", reason="devices, pipes and links of Unix")
@pytest.mark.parametrize("command", ["convert", "quantize", "bench", "leaks", "transcribe"])
def test_every_command_that_writes_leaves_devices_pipes_and_folders_alone(
    command: str, checkpoint: Path, model_file: Path, tmp_path: Path
) -> None:
    """As root, a device would be replaced by a file."""
    sample = hub.built_in_model().parent.parent / "samples" / "phone-number-zh-TW.wav"

    def run(out: Path) -> subprocess.CompletedProcess[str]:
        arguments: dict[str, list[object]] = {
            "convert": [checkpoint, out],
            "quantize": [model_file, out],
            "bench": ["-n", 1, "--warmup", 0, sample, "-o", out],
            "leaks": ["-n", 6, "--way", "reuse", "-o", out],
            "transcribe": ["--overwrite", sample, "-o", out],
        }
        return qwen3asr(command, *arguments[command])

    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    (tmp_path / "folder").mkdir()
    before = os.stat("/dev/null").st_rdev
    for out in (Path("/dev/null"), fifo, tmp_path / "folder"):
        done = run(out)
        assert done.returncode == 1
        assert f"'{out}' is " in done.stderr
    assert os.stat("/dev/null").st_rdev == before
    assert fifo.is_fifo()
    link, real = tmp_path / "link", tmp_path / "deep" / "real"
    real.parent.mkdir()
    link.symlink_to(real)
    for _ in range(2):  # a link to nothing, then to a regular file
        done = run(link)
        assert command == "leaks" or done.returncode == 0, done.stderr
        assert link.is_symlink()
        assert real.stat().st_size > 0
