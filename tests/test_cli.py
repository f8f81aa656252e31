"""The command line: text on standard output, one sentence for what is wrong, and an honest exit status."""

from __future__ import annotations

import io
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Callable

import numpy as np
import pytest
import soundfile
from conftest import ROOT

import qwen3asr_native
from qwen3asr_native.files.checkpoints import make_checkpoint


def qwen3asr(*arguments: object, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "qwen3asr_native", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, input=stdin, timeout=120, check=False)


@pytest.fixture
def wav(tmp_path: Path, tone: np.ndarray) -> Path:
    path = tmp_path / "語音 one.wav"
    soundfile.write(path, tone, 16000)
    return path


@pytest.fixture
def slow_library(compile_library: Callable[[Path], Path], tmp_path: Path) -> list[object]:
    """Options for a recognizer that takes 20 s."""
    settings = tmp_path / "slow.bin"
    settings.write_text("fake model\nsteps 1000\ndelay_ms 20\n")
    return ["--model", settings, "--library", compile_library(ROOT / "tests" / "fake_libchatllm.c")]


def assert_sentences(errors: bytes, *words: str) -> None:
    lines = errors.decode().splitlines()
    assert len(lines) == len(words), lines
    for line, word in zip(lines, words):
        assert word in line
    assert "Traceback" not in errors.decode()


def test_the_text_alone_is_on_standard_output(model_file: Path, wav: Path, tone: np.ndarray) -> None:
    with qwen3asr_native.Model(model_file) as model:
        expected = "".join(token.text for token in model.transcribe(wav, max_new_tokens=20).tokens)
    done = qwen3asr("transcribe", "--max-new-tokens", 20, "--model", model_file, wav)
    assert (done.returncode, done.stdout.decode(), done.stderr) == (0, expected + "\n", b"")


def test_standard_input_is_audio_too(model_file: Path, wav: Path) -> None:
    from_file = qwen3asr("transcribe", "--model", model_file, wav)
    from_stdin = qwen3asr("transcribe", "--model", model_file, "-", stdin=wav.read_bytes())
    assert from_stdin.returncode == 0
    assert from_stdin.stdout == from_file.stdout


def test_bad_files_get_a_sentence_and_the_others_run(model_file: Path, wav: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.wav").touch()
    (tmp_path / "text.wav").write_text("this is no audio at all, only words")
    done = qwen3asr(
        "transcribe",
        "--json",
        "--model",
        model_file,
        "nowhere.wav",
        tmp_path / "empty.wav",
        wav,
        tmp_path / "text.wav",
        wav,
    )
    assert done.returncode == 1
    assert_sentences(
        done.stderr, "'nowhere.wav' does not exist", "empty.wav' is empty", "text.wav' is not audio"
    )
    lines = [json.loads(line) for line in done.stdout.decode().splitlines()]
    assert ["error" in line for line in lines] == [True, True, False, True, False]
    assert lines[2]["file"] == str(wav)
    assert lines[2]["text"] == lines[4]["text"]


@pytest.mark.parametrize("name", ["missing.bin", "missing", "text.bin"])
def test_what_is_no_model_gets_a_sentence(name: str, wav: Path, tmp_path: Path) -> None:
    (tmp_path / "text.bin").write_text("no model at all")
    path = tmp_path / name if name.endswith(".bin") else name
    for arguments in (["transcribe", "--model", path, wav], ["info", path]):
        done = qwen3asr(*arguments)
        assert done.returncode == 1
        assert done.stdout == b""
        assert_sentences(done.stderr, name)


def test_an_unknown_language_gets_a_sentence(model_file: Path, wav: Path) -> None:
    done = qwen3asr("transcribe", "--model", model_file, "--language", "Klingon", wav)
    assert done.returncode == 1
    assert_sentences(done.stderr, "Klingon")


def test_timings_go_to_standard_error(model_file: Path, wav: Path) -> None:
    done = qwen3asr("transcribe", "--timings", "--model", model_file, wav)
    assert done.returncode == 0
    assert b"prefill" not in done.stdout
    for row in (b"mel", b"encode", b"prefill", b"first token", b"total"):
        assert row in done.stderr


def test_info_describes_the_header(model_file: Path) -> None:
    described = json.loads(qwen3asr("info", "--json", model_file).stdout)
    assert described == qwen3asr_native.inspect_model(model_file)
    table = qwen3asr("info", model_file).stdout.decode()
    assert described["name"] in table


def test_version_names_package_and_engine() -> None:
    done = qwen3asr("--version")
    assert done.returncode == 0
    assert qwen3asr_native.__version__ in done.stdout.decode()
    assert "generic" in done.stdout.decode()


def test_numbers_of_standard_input_become_digits() -> None:
    done = qwen3asr("itn", stdin="零九零零零七三三三一\n一心一意\n".encode())
    assert (done.returncode, done.stdout.decode().splitlines()) == (0, ["0900073331", "一心一意"])


@pytest.mark.parametrize(
    ("said", "written"),
    [
        (b"", b""),
        ("三百".encode(), b"300"),  # no line end
        ("三百\r\n\n".encode(), b"300\r\n\n"),
        ("三百\0二十\n".encode(), b"300\x0020\n"),
        ("三百".encode() + b"\xff\xe4\n", b"300\xff\xe4\n"),  # not UTF-8
    ],
)
def test_the_number_filter_keeps_what_is_not_a_number(said: bytes, written: bytes) -> None:
    done = qwen3asr("itn", stdin=said)
    assert (done.returncode, done.stdout, done.stderr) == (0, written, b"")


def _itn_in_shell(redirection: str) -> subprocess.CompletedProcess[bytes]:
    command = f"{shlex.quote(sys.executable)} -m qwen3asr_native itn {redirection}"
    return subprocess.run(command, shell=True, input="三百\n".encode(), capture_output=True, check=False)


@pytest.mark.skipif(sys.platform != "linux", reason="needs /dev/full")
@pytest.mark.parametrize(
    ("redirection", "sentence"),
    [
        (">/dev/full", b"qwen3asr itn: No space left on device\n"),
        ("<&-", b"qwen3asr itn: standard input or standard output is closed\n"),
        (">&-", b"qwen3asr itn: standard input or standard output is closed\n"),
    ],
)
def test_the_number_filter_fails_in_one_sentence(redirection: str, sentence: bytes) -> None:
    done = _itn_in_shell(redirection)
    assert (done.returncode, done.stderr) == (1, sentence)


def test_the_number_filter_ends_quietly_when_nobody_reads_on() -> None:
    command = [sys.executable, "-m", "qwen3asr_native", "itn"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdin and process.stdout and process.stderr
        process.stdin.write("三百\n".encode())
        process.stdin.flush()
        assert process.stdout.readline() == b"300\n"
        process.stdout.close()
        process.stdin.write("三百\n".encode())
        process.stdin.close()
        assert process.stderr.read() == b""
        assert process.wait(10) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="needs a terminal of Unix")
def test_at_a_terminal_the_number_filter_says_that_it_reads() -> None:
    import pty

    terminal, side = pty.openpty()
    command = [sys.executable, "-m", "qwen3asr_native", "itn"]
    with subprocess.Popen(command, stdin=side, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout and process.stderr
        assert b"reading from the terminal" in process.stderr.readline()
        os.write(terminal, "三百\n\x04".encode())
        assert process.stdout.read() == b"300\n"
        assert process.wait(10) == 0
    os.close(side)
    os.close(terminal)


@pytest.mark.parametrize("as_json", [True, False])
def test_ctrl_c_prints_what_there_is(slow_library: list[object], wav: Path, as_json: bool) -> None:
    command = [sys.executable, "-m", "qwen3asr_native", "transcribe", *map(str, slow_library), str(wav)]
    process = subprocess.Popen(
        command + ["--json"] * as_json, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
    )
    assert process.stdout is not None
    begin = b"" if as_json else process.stdout.read(20)  # text comes before the end
    time.sleep(1.0 if as_json else 0.2)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=10)
    text = json.loads(output)["text"] if as_json else (begin + output).decode()
    assert process.returncode == 130
    assert errors == b""
    assert text.startswith("16000 samples")
    assert as_json or text.endswith("\n")


def test_a_closed_pipe_is_no_error_message(slow_library: list[object], wav: Path) -> None:
    command = [sys.executable, "-m", "qwen3asr_native", "transcribe", *map(str, slow_library), str(wav)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.read(5)
    process.stdout.close()
    errors = process.stderr.read()
    assert process.wait(10) != 0
    assert errors == b""


def test_output_is_utf_8_in_any_locale(model_file: Path, wav: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "qwen3asr_native", "itn"],
        capture_output=True,
        input="你好".encode(),
        env={
            **os.environ,
            "LC_ALL": "C",
            "PYTHONUTF8": "0",
            "PYTHONIOENCODING": "latin-1",
            "PYTHONCOERCECLOCALE": "0",
        },
        check=False,
    )
    assert io.TextIOWrapper(io.BytesIO(done.stdout), "utf-8").read() == "你好"


@pytest.mark.skipif(sys.platform != "linux", reason="file names are bytes")
def test_a_name_that_is_not_utf_8_gets_a_sentence(model_file: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "qwen3asr_native",
        "transcribe",
        "--json",
        "-m",
        str(model_file),
        b"caf\xe9.wav",
    ]
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == 1
    assert_sentences(done.stderr, "does not exist")
    row = json.loads(done.stdout)
    assert row["file"] == "caf\ufffd.wav"
    assert row["file_uri"].endswith("/caf%E9.wav")
    assert "does not exist" in row["error"]


@pytest.mark.skipif(sys.platform == "win32", reason="shells of Unix")
def test_completion_knows_commands_and_options(tmp_path: Path) -> None:
    done = qwen3asr("--show-completion", "bash")
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"_QWEN3ASR_COMPLETE=bash_complete" in done.stdout
    environment = {**os.environ, "_QWEN3ASR_COMPLETE": "bash_complete", "COMP_CWORD": "2"}
    for typed, offered in (("qwen3asr conv", "convert"), ("qwen3asr transcribe --max", "--max-new-tokens")):
        environment.update(COMP_WORDS=typed, COMP_CWORD=str(len(typed.split()) - 1))
        answer = subprocess.run(
            [sys.executable, "-m", "qwen3asr_native"], env=environment, capture_output=True, check=False
        )
        assert offered in answer.stdout.decode()
    environment = {**os.environ, "HOME": str(tmp_path), "SHELL": "/bin/fish"}
    command = [sys.executable, "-m", "qwen3asr_native", "--install-completion"]
    assert subprocess.run(command, env=environment, check=False).returncode == 0
    script = (tmp_path / ".config/fish/completions/qwen3asr.fish").read_text()
    assert "_QWEN3ASR_COMPLETE=fish_complete" in script
    environment["SHELL"] = "/bin/tcsh"
    done = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert done.returncode == 1
    assert_sentences(done.stderr, "'tcsh'")


def test_a_text_that_did_not_end_by_itself_is_said_and_marked(model_file: Path) -> None:
    sample = ROOT / "samples" / "phone-number-zh-TW.wav"
    done = qwen3asr("transcribe", "--max-new-tokens", 6, "--model", model_file, sample)
    assert (done.returncode, done.stdout.decode()) == (0, "零九零\n")
    assert_sentences(done.stderr, "the text is cut off: the limit of tokens")
    done = qwen3asr("transcribe", "--json", "--max-new-tokens", 6, "--model", model_file, sample)
    assert_sentences(done.stderr, "the text is cut off: the limit of tokens")
    assert json.loads(done.stdout)["complete"] is False
    done = qwen3asr("transcribe", "--json", "--model", model_file, sample)
    assert (json.loads(done.stdout)["complete"], done.stderr) == (True, b"")


def test_several_files_give_lines_with_names_and_a_bad_one_none(
    model_file: Path, wav: Path, tmp_path: Path
) -> None:
    sample = ROOT / "samples" / "phone-number-zh-TW.wav"
    done = qwen3asr("transcribe", "--model", model_file, sample, tmp_path / "nowhere.wav", sample)
    assert done.returncode == 1
    assert done.stdout.decode() == f"{sample}\t零九零零零七三三三一\n" * 2
    assert_sentences(done.stderr, "does not exist")
    done = qwen3asr("transcribe", "--no-names", "--itn", "--model", model_file, sample, sample)
    assert done.stdout.decode() == "0900073331\n" * 2


def _transcribe_in_shell(redirection: str, *arguments: object) -> subprocess.CompletedProcess[bytes]:
    words = [sys.executable, "-m", "qwen3asr_native", "transcribe", *map(str, arguments)]
    command = f"{shlex.join(words)} {redirection}"
    return subprocess.run(command, shell=True, capture_output=True, check=False)


@pytest.mark.skipif(sys.platform != "linux", reason="needs /dev/full")
@pytest.mark.parametrize("options", [["--json"], [], ["--itn"]])
@pytest.mark.parametrize(
    ("redirection", "file", "sentence"),
    [
        (">/dev/full", None, "standard output cannot be written: No space left on device"),
        (">&-", None, "standard output is closed"),
        ("<&-", "-", "standard input is closed"),
    ],
)
def test_a_full_disk_and_closed_streams_are_one_sentence(
    redirection: str, file: str | None, sentence: str, options: list[str], model_file: Path
) -> None:
    sample = ROOT / "samples" / "phone-number-zh-TW.wav"
    done = _transcribe_in_shell(redirection, "--model", model_file, *options, file or sample)
    assert done.returncode == 1
    assert_sentences(done.stderr, sentence)


@pytest.mark.skipif(sys.platform == "win32", reason="redirections of Unix")
def test_with_standard_error_closed_notes_are_no_part_of_the_text() -> None:
    sample = ROOT / "samples" / "phone-number-zh-TW.wav"
    done = _transcribe_in_shell("2>&-", "--max-new-tokens", 6, sample)
    assert (done.returncode, done.stdout.decode()) == (0, "零九零\n")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such names")
@pytest.mark.parametrize("sign", ["\x1b[31m", "\x9b31m", "\x07", "\u202e", "\n", "\x7f"])
def test_signs_that_move_a_terminal_are_shown_and_not_sent(
    sign: str, model_file: Path, tmp_path: Path
) -> None:
    name = f"a{sign}b.wav"
    done = qwen3asr("transcribe", "--model", model_file, tmp_path / name)
    assert_sentences(done.stderr, "does not exist")
    assert sign not in done.stderr.decode().rstrip("\n")
    done = qwen3asr("transcribe", "--json", "--model", model_file, tmp_path / name)
    assert sign not in done.stdout.decode().rstrip("\n")
    assert json.loads(done.stdout)["file"] == str(tmp_path / name)
    for arguments in ([f"a{sign}"], ["transcribe", f"--{sign}"], ["bench", f"-n{sign}", "x"]):
        done = qwen3asr(*arguments)
        assert done.returncode == 2
        assert sign == "\n" or sign not in done.stderr.decode()


def test_signs_in_a_models_metadata_do_not_reach_the_terminal(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path / "hf", text={"vocab_size": 400}, seed=3)
    model = tmp_path / "m.bin"
    assert qwen3asr("convert", checkpoint, model, "--name", "a\x1b[31mb\u202e").returncode == 0
    for arguments in (["info", model], ["info", "--json", model]):
        done = qwen3asr(*arguments)
        assert done.returncode == 0
        assert not set("\x1b\u202e") & set(done.stdout.decode())
    assert json.loads(done.stdout)["name"] == "a\x1b[31mb\u202e"


def test_more_threads_than_processors_are_not_taken(model_file: Path) -> None:
    sample = ROOT / "samples" / "phone-number-zh-TW.wav"
    done = qwen3asr("transcribe", "-t", 10_000, "--json", "--model", model_file, sample)
    assert done.returncode == 0
    assert_sentences(done.stderr, "10000 threads are more than the processors")
    assert json.loads(done.stdout)["timings"]["threads"] <= (os.cpu_count() or 1)
