"""Another build of chatllm.cpp's C API, driven through the same shim: what it can give, and what it says it cannot."""

from __future__ import annotations

import glob
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Callable

import numpy as np
import pytest
from conftest import ROOT

from qwen3asr_native import (
    ArgumentError,
    EngineError,
    LibraryError,
    Model,
    ModelClosedError,
    ModelFileError,
)


@pytest.fixture(scope="session")
def library(compile_library: Callable[[Path], Path]) -> Path:
    return compile_library(ROOT / "tests" / "fake_libchatllm.c")


@pytest.fixture
def fake_model(tmp_path: Path) -> Callable[..., Path]:
    def write(**settings: object) -> Path:
        path = tmp_path / "fake.bin"
        path.write_text("fake model\n" + "".join(f"{name} {value}\n" for name, value in settings.items()))
        return path

    return write


def test_text_and_times_come_but_no_ids(
    library: Path, fake_model: Callable[..., Path], tone: np.ndarray
) -> None:
    with Model(fake_model(steps=3, delay_ms=20), library=library) as model:
        assert model.info == {"name": "fake", "purpose": "ASR"}
        result = model.transcribe(tone, sample_rate=16000, context="names", max_new_tokens=77)
    assert result.text == "16000 samples, system 'names', language '', limit 77 0 1 2"
    assert result.language == "English"
    assert result.finish is None
    assert {(token.id, token.logprob) for token in result.tokens} == {(None, None)}
    times = [token.elapsed_ms for token in result.tokens]
    assert times == sorted(times)
    assert times[-1] - times[-2] >= 20
    timings = result.timings
    assert timings.mel_ms is timings.encode_ms is timings.prefill_ms is timings.load_ms is None
    assert timings.first_token_ms == pytest.approx(times[0])
    assert timings.total_ms >= 60
    assert timings.audio_ms == 1000


def test_a_forced_language_is_set_at_its_start_and_its_tag_is_no_text(
    library: Path, fake_model: Callable[..., Path], tone: np.ndarray
) -> None:
    with Model(fake_model(steps=0), library=library) as model:
        result = model.transcribe(tone, "chinese", sample_rate=16000)
        assert result.text == "16000 samples, system '', language 'Chinese', limit -1"
        assert result.language == "Chinese"
        assert "language ''" in model.transcribe(tone, sample_rate=16000).text


def test_tokens_arrive_while_the_library_works(
    library: Path, fake_model: Callable[..., Path], tone: np.ndarray
) -> None:
    with (
        Model(fake_model(steps=5, delay_ms=50), library=library) as model,
        model.stream(tone, sample_rate=16000) as stream,
    ):
        first = next(token for token in stream if token.text)
        arrival_ns = time.monotonic_ns()
        last = list(stream)[-1]
    assert first.time_ns <= arrival_ns < last.time_ns


def test_a_printed_error_becomes_an_exception(
    library: Path, fake_model: Callable[..., Path], tone: np.ndarray
) -> None:
    with Model(fake_model(fail="the tensor is sad"), library=library) as model:
        for _ in range(2):
            with pytest.raises(EngineError, match="the tensor is sad"):
                model.transcribe(tone, sample_rate=16000)


def test_an_abort_stops_it(library: Path, fake_model: Callable[..., Path], tone: np.ndarray) -> None:
    with Model(fake_model(steps=1000, delay_ms=10), library=library) as model:
        threading.Timer(0.15, model.abort).start()
        result = model.transcribe(tone, sample_rate=16000)
        assert len(result.tokens) < 1000
        assert result.finish == "abort"
        assert result.text.endswith(f" {len(result.tokens) - 4}")


def test_several_threads_are_served_one_after_the_other(
    library: Path, fake_model: Callable[..., Path], tone: np.ndarray
) -> None:
    with Model(fake_model(steps=2, delay_ms=2), library=library) as model:
        audios = [(tone[: 1600 * (index + 1)], 16000) for index in range(6)]
        texts = [str(result) for result in model.transcribe_many(audios)]
        languages = ["Chinese", "English", None]
        with ThreadPoolExecutor(6) as pool:
            mixed = list(
                pool.map(lambda name: model.transcribe(tone, name, sample_rate=16000).text, languages * 4)
            )
    assert [text.split()[0] for text in texts] == [str(1600 * (index + 1)) for index in range(6)]
    for name, text in zip(languages * 4, mixed):
        assert f"language '{name or ''}'" in text


def test_a_waiting_stream_can_be_aborted(
    library: Path, fake_model: Callable[..., Path], tone: np.ndarray
) -> None:
    with Model(fake_model(steps=1000, delay_ms=10), library=library) as model:
        first, second = (model.stream(tone, sample_rate=16000) for _ in range(2))
        second.abort()
        assert second.finish().finish == "abort"
        assert second.transcript.tokens == ()
        next(first)
        first.close()


def test_no_temporary_file_is_left(library: Path, fake_model: Callable[..., Path], tone: np.ndarray) -> None:
    pattern = f"{tempfile.gettempdir()}/qwen3asr-*.wav"
    before = set(glob.glob(pattern))
    with Model(fake_model(steps=100, delay_ms=5), library=library) as model:
        model.transcribe(tone, sample_rate=16000, max_new_tokens=1)
        with model.stream(tone, sample_rate=16000) as stream:
            next(stream)
    assert set(glob.glob(pattern)) == before


def test_what_it_cannot_do_is_said(library: Path, fake_model: Callable[..., Path], tone: np.ndarray) -> None:
    with Model(fake_model(), library=library) as model:
        with pytest.raises(LibraryError, match="intermediate results"):
            model.log_mel(tone, sample_rate=16000)
        with pytest.raises(LibraryError, match="attention"):
            model.transcribe(tone, sample_rate=16000, attention="full")
        assert model.transcribe(tone, sample_rate=16000).text
    with pytest.raises(ArgumentError, match="kernels"):
        Model(fake_model(), library=library, kernels="generic")
    with pytest.raises(ModelClosedError):
        model.transcribe(tone, sample_rate=16000)


def test_a_model_that_it_refuses_is_an_error(library: Path, tmp_path: Path) -> None:
    path = tmp_path / "no.bin"
    path.write_text("something else")
    with pytest.raises(ModelFileError, match="this is no model"):
        Model(path, library=library)


def test_what_is_no_such_library_is_named(
    tmp_path: Path, fake_model: Callable[..., Path], compile_library: Callable[[Path], Path]
) -> None:
    with pytest.raises(LibraryError, match="does not exist"):
        Model(fake_model(), library=tmp_path / "missing.so")
    with pytest.raises(LibraryError, match="cannot be used"):
        Model(fake_model(), library=fake_model())
    source = tmp_path / "other.c"
    source.write_text("int something(void) { return 1; }")
    with pytest.raises(LibraryError, match="no function chatllm_create"):
        Model(fake_model(), library=compile_library(source))
