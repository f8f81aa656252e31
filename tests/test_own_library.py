"""Our libchatllm.so, built by CMake and given as ``library=``: with our additions, and as upstream's API alone.

Its path is in QWEN3ASR_TEST_LIBRARY.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import ROOT

from qwen3asr_native import Model
from qwen3asr_native.audio import pieces
from qwen3asr_native.engine import Engine, Options
from qwen3asr_native.stream import Stream
from qwen3asr_native.transcript import Transcript


@pytest.fixture(scope="module")
def library() -> Path:
    path = os.environ.get("QWEN3ASR_TEST_LIBRARY")
    if path is None:
        pytest.skip("QWEN3ASR_TEST_LIBRARY names no library")
    return Path(path)


def plain_run(engine: Engine, audio: np.ndarray, language: str | None, context: str) -> Transcript:
    options = Options(engine.check_language(language), context, 30)
    return Stream(engine, pieces(audio, 16000), options, None, False).finish()


def test_with_our_additions_it_gives_the_same_tokens(
    library: Path, model: Model, model_file: Path, tone: np.ndarray
) -> None:
    with Model(model_file, library=library) as other:
        assert other.info == model.info
        results = [each.transcribe(tone, sample_rate=16000, max_new_tokens=30) for each in (model, other)]
        first, second = (
            [(token.id, token.logprob, token.text) for token in result.tokens] for result in results
        )
        assert first == second
        assert first
        assert results[0].raw == results[1].raw
        np.testing.assert_array_equal(*(each.log_mel(tone, sample_rate=16000) for each in (model, other)))


@pytest.mark.parametrize(("language", "context"), [(None, ""), ("English", ""), (None, "PostgreSQL")])
def test_by_upstreams_api_alone_it_gives_the_same_text(
    library: Path, model: Model, model_file: Path, language: str | None, context: str
) -> None:
    # 16-bit samples, as the WAV file has them that upstream's API needs.
    speech, rate = soundfile.read(ROOT / "samples" / "phone-number-zh-TW.wav", dtype="int16")
    assert rate == 16000
    engine = Engine(model_file, library=library, plain_library=True)
    try:
        result = plain_run(engine, speech, language, context)
        again = plain_run(engine, speech, language, context)
    finally:
        engine.close()
    expected = model.transcribe(speech, language, context, sample_rate=16000, max_new_tokens=30)
    assert result.raw == again.raw == expected.raw
    assert language or result.tokens
    assert all(token.id is None for token in result.tokens)
