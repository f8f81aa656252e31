"""The engine computes what the official code computes: reference outputs on a small random checkpoint.

Errors are relative RMS: the root mean square of the difference over that of the reference.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from reference_sets import DIRECTORY, SETS, SPEECH

from qwen3asr_native import Model, kernel_sets
from qwen3asr_native.audio import Piece, load
from qwen3asr_native.engine import Event, Options, RunResult
from qwen3asr_native.stream import Stream

LIMIT = 1e-4
CONTEXT = "Preserve spelling: PostgreSQL"
# name of the outputs, clip, forced language, context
CASES = [
    ("g1", "g1.wav", None, ""),
    ("g6", "g6.wav", None, ""),
    ("g21", "g21.wav", None, ""),
    ("g6zh", "g6.wav", "Chinese", CONTEXT),
]
MODES = ["window", "full"]


def relative_rms(value: np.ndarray, reference: np.ndarray) -> float:
    assert value.shape == reference.shape
    return float(np.sqrt(np.mean((value - reference) ** 2) / np.mean(reference**2)))


@pytest.fixture(scope="module")
def exact(golden: Path) -> Iterator[Model]:
    with Model(golden / "tiny-f16.bin", kernels="generic") as model:
        yield model


@pytest.mark.parametrize("clip", ["g1", "g6", "g21"])
def test_log_mel(exact: Model, golden: Path, clip: str) -> None:
    reference = np.load(golden / f"{clip}.npz")
    assert len(load(golden / f"{clip}.wav")) == reference["pcm_len"]
    assert relative_rms(exact.log_mel(golden / f"{clip}.wav"), reference["mel"]) < LIMIT


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("clip", ["g1", "g6", "g21"])
def test_encoder(exact: Model, golden: Path, clip: str, mode: str) -> None:
    reference = np.load(golden / f"{clip}.npz")[f"{mode}_encoder"]
    assert relative_rms(exact.encode(golden / f"{clip}.wav", mode), reference) < LIMIT


@pytest.mark.parametrize(("name", "clip", "language", "context"), CASES)
def test_prompt(exact: Model, golden: Path, name: str, clip: str, language: str | None, context: str) -> None:
    reference = np.load(golden / f"{name}.npz")
    ids = exact._engine.backend.session.prompt_ids(int(reference["pcm_len"]), Options(language, context))
    assert ids == reference["prompt_ids"].tolist()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("name", "clip", "language", "context"), CASES)
def test_prefill_logits(
    exact: Model, golden: Path, name: str, clip: str, language: str | None, context: str, mode: str
) -> None:
    reference = np.load(golden / f"{name}.npz")[f"{mode}_logits"]
    assert (
        relative_rms(
            exact.prefill_logits(golden / clip, language, context=context, attention=mode), reference
        )
        < LIMIT
    )


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("name", "clip", "language", "context"), CASES)
def test_greedy_tokens(
    exact: Model, golden: Path, name: str, clip: str, language: str | None, context: str, mode: str
) -> None:
    reference = np.load(golden / f"{name}.npz")
    expected = reference[f"{mode}_tokens"].tolist()
    options = Options(language, context, len(expected), mode, ignore_stop=True)
    tokens = (
        Stream(exact._engine, iter([Piece(0, load(golden / clip))]), options, None, False).finish().tokens
    )
    generated = [token for token in tokens if token.id is not None]
    assert [token.id for token in generated] == expected
    np.testing.assert_allclose(
        [token.logprob for token in generated], reference[f"{mode}_logprobs"], atol=1e-2
    )


@pytest.mark.parametrize("kernels", kernel_sets())
@pytest.mark.parametrize("clip", ["g1", "g6", "g21"])
def test_fast_kernels_stay_within_their_error_budget(
    exact: Model, golden: Path, clip: str, kernels: str
) -> None:
    audio = golden / f"{clip}.wav"
    with Model(golden / "tiny-f16.bin", kernels=kernels) as fast:
        assert relative_rms(fast.encode(audio), exact.encode(audio)) < 0.02
        assert relative_rms(fast.prefill_logits(audio), exact.prefill_logits(audio)) < 0.02


@pytest.mark.parametrize("kernels", kernel_sets())
@pytest.mark.parametrize("kind", ["q8_0", "q4_0", "q4_1", "q4_k"])
def test_fast_kernels_agree_with_generic_on_quantized_files(
    exact: Model, golden: Path, kind: str, kernels: str
) -> None:
    """Files of 8 bits: within 2 %. Of 4 bits: within an eighth of what quantizing the file has cost."""
    audio = golden / "g6.wav"
    with (
        Model(golden / f"tiny-{kind}.bin", kernels=kernels) as fast,
        Model(golden / f"tiny-{kind}.bin", kernels="generic") as generic,
    ):
        for result in ("encode", "prefill_logits"):
            quantized, unquantized = (getattr(model, result)(audio) for model in (generic, exact))
            cost = relative_rms(quantized, unquantized)
            limit = 0.02 if kind == "q8_0" else max(0.02, cost / 8)
            assert relative_rms(getattr(fast, result)(audio), quantized) < limit


# ---- odd shapes, whose checkpoints are made anew and whose official outputs lie in this repository ----


@pytest.fixture(scope="module", params=sorted(SETS))
def stored(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Model, str, dict[str, np.ndarray]]]:
    """A model in float32 and what the official code gave for its checkpoint."""
    pytest.importorskip("safetensors")
    from qwen3asr_native.files.convert import convert

    folder = tmp_path_factory.mktemp(request.param)
    file = convert(SETS[request.param].make(folder / "hf"), folder / "model.bin", "f16")
    with np.load(DIRECTORY / f"{request.param}.npz") as arrays, Model(file, kernels="generic") as model:
        yield model, request.param, dict(arrays)


def test_log_mel_and_prompt_of_odd_shapes(stored: tuple[Model, str, dict[str, np.ndarray]]) -> None:
    model, name, wanted = stored
    assert relative_rms(model.log_mel(SPEECH), wanted["mel"]) < LIMIT
    options = Options(SETS[name].language, SETS[name].context)
    ids = model._engine.backend.session.prompt_ids(int(wanted["pcm_len"]), options)
    assert ids == wanted["prompt_ids"].tolist()


@pytest.mark.parametrize("mode", MODES)
def test_encoder_logits_and_tokens_of_odd_shapes(
    stored: tuple[Model, str, dict[str, np.ndarray]], mode: str
) -> None:
    model, name, wanted = stored
    entry = SETS[name]
    assert relative_rms(model.encode(SPEECH, mode), wanted[f"{mode}_encoder"]) < LIMIT
    logits = model.prefill_logits(SPEECH, entry.language, context=entry.context, attention=mode)
    assert relative_rms(logits, wanted[f"{mode}_logits"]) < LIMIT
    options = Options(
        entry.language,
        entry.context,
        max_new_tokens=len(wanted[f"{mode}_tokens"]),
        attention=mode,
        ignore_stop=True,
    )
    run = model._engine.call().submit(load(SPEECH), options)
    tokens = []
    while not isinstance(event := run.next(), RunResult):
        if isinstance(event, Event):
            tokens.append(event)
    assert [token.id for token in tokens] == wanted[f"{mode}_tokens"].tolist()
    assert np.allclose([token.logprob for token in tokens], wanted[f"{mode}_logprobs"], atol=1e-3)
