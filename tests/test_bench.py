"""The benchmark: numbers that are what they say, and a report that survives."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Callable

import numpy as np
import pytest
import soundfile
from conftest import ROOT

from qwen3asr_native import ArgumentError, AudioError
from qwen3asr_native.engine import Machine, measure_machine
from qwen3asr_native.files.ggmm import Tensor
from qwen3asr_native.files.quantization import TensorType
from qwen3asr_native.lab import bench, measure
from qwen3asr_native.lab.measure import spread
from qwen3asr_native.lab.roofline import shares, work_of_tensors
from qwen3asr_native.lab.scoring import error_rates, normalize_for_scoring

LIMITED = bench.Settings(max_new_tokens=12)


@pytest.fixture
def wav(tmp_path: Path, tone: np.ndarray) -> Path:
    path = tmp_path / "speech.wav"
    soundfile.write(path, tone, 16000)
    return path


@pytest.fixture
def slow(compile_library: Callable[[Path], Path], tmp_path: Path) -> Callable[..., tuple[Path, Path]]:
    """A library that takes a known time for each piece of text, and its model."""

    def slow(steps: int, delay_ms: int) -> tuple[Path, Path]:
        model = tmp_path / "slow.bin"
        model.write_text(f"fake model\nsteps {steps}\ndelay_ms {delay_ms}\n")
        return model, compile_library(ROOT / "tests" / "fake_libchatllm.c")

    return slow


def test_each_transcription_is_measured(model_file: Path, wav: Path, tmp_path: Path) -> None:
    second = tmp_path / "second.wav"
    second.write_bytes(wav.read_bytes())
    report = bench.run([wav, second], model_file, iterations=3, settings=LIMITED)
    assert [(i.number, Path(i.file).name) for i in report.iterations] == [
        (number, name) for number in (1, 2, 3) for name in ("speech.wav", "second.wav")
    ]
    for run in report.iterations:
        assert run.mel_ms and run.encode_ms and run.prefill_ms and run.first_token_ms
        assert run.mel_ms + run.encode_ms + run.prefill_ms <= run.first_token_ms + 0.1
        assert run.first_token_ms <= run.total_ms
        assert run.real_time_factor == pytest.approx(run.total_ms / 1000)
        assert run.uss is not None and run.peak_rss is not None
        assert run.uss <= run.rss <= run.peak_rss
        assert len(run.token_ms) == run.new_tokens
    assert report.summary["total_ms"] == spread([run.total_ms for run in report.iterations])._asdict()  # type: ignore[union-attr]
    assert report.files[str(second)]["total_ms"]["values"] == 3  # type: ignore[index]


def test_the_warm_up_is_not_measured_and_a_reload_is(model_file: Path, wav: Path) -> None:
    once = bench.run([wav], model_file, iterations=3, warmup=0, settings=LIMITED)
    assert [run.load_ms is not None for run in once.iterations] == [True, False, False]
    reloaded = bench.run([wav], model_file, iterations=3, settings=LIMITED._replace(reload=True))
    assert all(run.load_ms for run in reloaded.iterations)


def test_speed_is_that_of_the_clock_where_the_text_is_made(
    slow: Callable[..., tuple[Path, Path]], wav: Path
) -> None:
    model, library = slow(steps=10, delay_ms=20)
    settings = bench.Settings(library=str(library))
    (run,) = bench.run([wav], model, iterations=1, warmup=0, settings=settings).iterations
    # The text comes at once after the first piece, then 10 times two characters after at least 20 ms each: a busy
    # machine can only make it slower.
    assert run.decode_ms is not None
    assert 199 < run.decode_ms <= run.total_ms
    assert run.characters_per_second == pytest.approx(len(run.text) / run.decode_ms * 1e3)
    assert run.mel_ms is run.encode_ms is run.prefill_ms is run.load_ms is None


def test_errors_are_counted_against_the_references(slow: Callable[..., tuple[Path, Path]], wav: Path) -> None:
    model, library = slow(steps=0, delay_ms=0)
    settings = bench.Settings(library=str(library))
    said = "16000 samples, system '', language '', limit -1"
    for reference, cer in ((said, 0.0), (said + "?", 1 / (len(said) + 1))):
        report = bench.run([wav], model, iterations=1, references={str(wav): reference}, settings=settings)
        errors = report.iterations[0].errors
        assert errors is not None
        assert errors.cer == pytest.approx(cer)
        assert errors.cer_normalized == 0
    assert report.summary["cer"] is not None


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("Hello,  World!", "hello world"),
        ("電話是零九零零七三三三三一。", "電話是0900733331"),
        ("ＡＢＣ，你 好", "abc你好"),
        ("", ""),
    ],
)
def test_normalization_leaves_what_was_said(text: str, normal: str) -> None:
    assert normalize_for_scoring(text) == normal


def test_each_han_character_is_a_word() -> None:
    assert error_rates("今天好", "今天很好").wer == pytest.approx(0.25)
    assert error_rates("a b x", "a b c").wer == pytest.approx(1 / 3)
    assert error_rates("", "abc").cer == 1
    assert error_rates("abc", "").cer == 1


def test_references_lie_beside_the_audio_or_in_a_table(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("of its own\n")
    table = tmp_path / "table.tsv"
    table.write_text("b.wav\tof the table\n\na.wav\tthe table wins\n", encoding="utf-8")
    a, b, c = (str(tmp_path / f"{name}.wav") for name in "abc")
    assert bench.read_references([a, b, c], None) == {a: "of its own"}
    assert bench.read_references([a, b, c], table) == {a: "the table wins", b: "of the table"}
    table.write_text("no tab here\n")
    with pytest.raises(ArgumentError, match=r"line 1 of .* has no tab"):
        bench.read_references([a], table)
    with pytest.raises(ArgumentError, match="cannot be read"):
        bench.read_references([a], tmp_path / "nowhere.tsv")
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\xfd")
    with pytest.raises(ArgumentError, match="not UTF-8"):
        bench.read_references([a], None)


def test_impossible_settings_are_named(model_file: Path, wav: Path) -> None:
    with pytest.raises(ArgumentError, match="at least 1 iteration"):
        bench.run([wav], model_file, iterations=0)
    with pytest.raises(ArgumentError, match="at least one audio file"):
        bench.run([], model_file)
    with pytest.raises(ArgumentError, match="leave out the library"):
        bench.run([wav], model_file, roofline=True, settings=bench.Settings(library="x.so"))
    with pytest.raises(AudioError, match="does not exist"):
        bench.run(["nowhere.wav"], model_file)


def test_a_missing_library_is_named_with_its_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jiwer", None)
    with pytest.raises(
        ArgumentError, match=r"'jiwer'; install it with: pip install 'qwen3asr-native\[bench\]'"
    ):
        error_rates("a", "b")


def _shape_of_0_6b() -> dict[str, Tensor]:
    """The tensors with weights of the 0.6B model's file at Q4_0."""
    shapes: dict[str, tuple[int, ...]] = {
        "audio.conv2d1.weight": (480, 1, 3, 3),
        "audio.conv2d2.weight": (480, 480, 3, 3),
        "audio.conv2d3.weight": (480, 480, 3, 3),
        "audio.conv_out.weight": (896, 7680),
        "multi_modal_projector.proj1.weight": (896, 896),
        "multi_modal_projector.proj2.weight": (1024, 896),
        "lm_head.weight": (151936, 1024),
        "model.embed_tokens.weight": (151936, 1024),
    }
    for layer in range(18):
        names = ("mlp.fc0", "mlp.fc1", *(f"self_attn.{part}_proj" for part in "qkvo"))
        sizes = ((3584, 896), (896, 3584), *[(896, 896)] * 4)
        shapes.update({f"audio.layers.{layer}.{name}.weight": size for name, size in zip(names, sizes)})
    for layer in range(28):
        names = (
            *(f"mlp.{part}_proj" for part in ("gate", "up", "down")),
            *(f"self_attn.{p}_proj" for p in "qkvo"),
        )
        sizes = (
            (3072, 1024),
            (3072, 1024),
            (1024, 3072),
            (2048, 1024),
            (1024, 1024),
            (1024, 1024),
            (1024, 2048),
        )
        shapes.update({f"model.layers.{layer}.{name}.weight": size for name, size in zip(names, sizes)})
    return {
        name: Tensor(name, shape, TensorType.F16 if len(shape) == 4 else TensorType.Q4_0, 0)
        for name, shape in shapes.items()
    }


def test_the_work_of_the_0_6b_model() -> None:
    work = work_of_tensors(_shape_of_0_6b(), 128)
    # For 15.3 s: 64 GFLOP of convolutions, 3 of conv_out, 69 of layers; 190 of prefill over 217 positions.
    assert work.encode_ops(15300, 199) == pytest.approx(136.5e9, rel=0.01)
    assert 217 * work.position_ops == pytest.approx(190e9, rel=0.01)
    assert work.token_bytes == pytest.approx(596e6 * 4.5 / 8, rel=0.01)


def test_shares_are_rates_over_limits() -> None:
    work = work_of_tensors(_shape_of_0_6b(), 128)
    machine = Machine(threads=2, int8_ops=800e9, bf16_ops=400e9, float_ops=200e9, read_bytes=30e9)
    run = SimpleNamespace(
        audio_ms=15300, audio_tokens=199, prompt_tokens=217, encode_ms=683, prefill_ms=876, per_token_ms=22.35
    )
    found = shares(work, machine, [run, run])  # type: ignore[list-item]
    assert found["encode"]["share_of_int8"] == pytest.approx(0.25, rel=0.01)
    assert found["prefill"]["share_of_bf16"] == pytest.approx(0.5, rel=0.01)
    assert found["prefill"]["share_of_float32"] == pytest.approx(1.0, rel=0.01)
    assert found["both"]["share_of_int8"] == pytest.approx((0.25 * 683 + 0.25 * 876) / 1559, rel=0.01)
    assert found["decode"]["share_of_read"] == pytest.approx(0.5, rel=0.01)


def test_the_machine_is_measured_or_the_error_names_what_is_wrong() -> None:
    machine = measure_machine("generic", threads=1)
    assert machine.threads == 1
    assert 1e8 < machine.float_ops < 1e13
    with pytest.raises(ArgumentError, match="'steam'"):
        measure_machine("steam")


def test_the_roofline_is_measured_in_the_same_run(model_file: Path, wav: Path) -> None:
    report = bench.run([wav], model_file, iterations=1, roofline=True, settings=LIMITED._replace(threads=1))
    assert report.roofline is not None
    assert report.roofline["machine"]["threads"] == 1
    for stage in ("encode", "prefill", "both"):
        assert 0 < report.roofline[stage]["share_of_int8"] < 1
        assert report.roofline[stage]["share_of_float32"] > 0
    assert report.roofline["machine"]["read_bytes"] > 1e9


def test_spread_takes_what_is_there() -> None:
    assert spread([None, 1.0, 2.0, 3.0]) == (2.0, pytest.approx(1.2), pytest.approx(2.8), 1.0, 3.0, 3)
    assert spread([None]) is None


def test_the_meter_sees_what_is_allocated() -> None:
    meter = measure.MemoryMeter()
    before = meter.sample()
    block = np.ones(20_000_000, dtype=np.uint8)
    with open(__file__, "rb"):
        during = meter.sample()
    assert block.nbytes * 0.95 < during.rss - before.rss < block.nbytes * 1.1
    assert during.descriptors == before.descriptors + 1
    if before.malloc is not None and during.malloc is not None:
        assert during.malloc - before.malloc == pytest.approx(block.nbytes, rel=0.05)


def _command(*words: object) -> list[str]:
    return [sys.executable, "-m", "qwen3asr_native", "bench", *map(str, words)]


def test_the_command_prints_a_table_and_writes_everything(
    model_file: Path, wav: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wav.with_suffix(".txt").write_text("what was said")
    for name, value in (("INFERENCE_THREADS", "1"), ("CONTEXT_LENGTH", "900"), ("ASR_LANGUAGE", "Chinese")):
        monkeypatch.setenv(name, value)
    options = ["-m", model_file, "-n", 2, "--max-new-tokens", 12, "--plot", "plots/bench.png"]
    done = subprocess.run(_command(wav, *options), capture_output=True, text=True, cwd=tmp_path, check=False)
    assert (done.returncode, done.stderr) == (
        0,
        f"The whole result is in {Path('results/asr_results.json')}.\n",
    )
    assert "\x1b" not in done.stdout
    for row in (
        "load",
        "encode",
        "prefill, ms",
        "real-time factor",
        "character errors, normalized",
    ):
        assert row in done.stdout
    result = json.loads((tmp_path / "results" / "asr_results.json").read_text())
    assert set(result) >= {"settings", "machine", "versions", "model", "iterations", "summary", "files"}
    assert len(result["iterations"]) == 2
    assert len(result["model"]["sha256"]) == 64
    info = result["model"]["info"]
    assert (info["threads"], info["context_length"], result["settings"]["language"]) == (1, 900, "Chinese")
    assert (tmp_path / "plots" / "bench.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.skipif(os.name != "posix", reason="pseudo-terminals")
@pytest.mark.parametrize(("terminal", "bars"), [("dumb", False), ("xterm", True)])
def test_bars_move_only_where_the_cursor_does(
    model_file: Path, wav: Path, tmp_path: Path, terminal: str, bars: bool
) -> None:
    import pty

    ours, theirs = pty.openpty()
    command = _command(wav, "-m", model_file, "-n", 2, "--max-new-tokens", 12)
    environment = {**os.environ, "TERM": terminal}
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=theirs, cwd=tmp_path, env=environment
    )
    os.close(theirs)
    shown = b""
    while process.poll() is None or select.select([ours], [], [], 0)[0]:
        try:
            shown += os.read(ours, 1 << 16)
        except OSError:  # Linux: the other end is closed
            break
    os.close(ours)
    assert process.wait(20) == 0
    assert (b"\x1b" in shown) is bars
    assert b"The whole result is in" in shown


def test_ctrl_c_prints_what_was_measured(model_file: Path, wav: Path, tmp_path: Path) -> None:
    command = _command(wav, "-m", model_file, "-n", 100000, "--max-new-tokens", 12)
    for seconds in (4, 10, 30):  # on a busy machine nothing may have been measured yet
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path)
        time.sleep(seconds)
        process.send_signal(signal.SIGINT)
        printed, errors = process.communicate(timeout=60)
        assert process.returncode == 130
        assert b"Traceback" not in errors
        if printed:
            break
    assert b"interrupted" in printed
    result = json.loads((tmp_path / "results" / "asr_results.json").read_text())
    assert result["interrupted"] is True
    assert result["iterations"]


def test_a_result_that_cannot_be_written_gets_a_sentence(model_file: Path, wav: Path, tmp_path: Path) -> None:
    (tmp_path / "results").write_text("a file where the folder should be")
    done = subprocess.run(
        _command(wav, "-m", model_file, "-n", 1), capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 1
    assert "real-time factor" in done.stdout  # the work is not lost
    assert "asr_results.json' cannot be written" in done.stderr
    assert "Traceback" not in done.stderr


def test_threads_and_numbers_at_once_are_compared(model_file: Path, wav: Path, tmp_path: Path) -> None:
    options = ["-m", model_file, "-n", 1, "--max-new-tokens", 6, "--threads", "1,2", "--concurrency", 3]
    done = subprocess.run(_command(wav, *options), capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert "audio s/s" in done.stdout and "1.00" in done.stdout
    rows = json.loads((tmp_path / "results" / "asr_results.json").read_text())["rows"]
    assert [(row["threads"], row["at_once"]) for row in rows] == [(1, 1), (1, 3), (2, 1), (2, 3)]
    assert all(row["audio_per_second"] > 0 and row["rss"] > 0 for row in rows)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--threads", "1,zwei"], "1,zwei"),
        (["--threads", "0"], "at least 1"),
        (["--concurrency", 2, "--roofline"], "do not go with a comparison"),
    ],
)
def test_a_comparison_that_cannot_be_made_gets_a_sentence(wav: Path, words: list[object], says: str) -> None:
    done = subprocess.run(_command(wav, *words), capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr
