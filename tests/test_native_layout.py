"""Checkpoints in the layout of transformers 5."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from native_layout import to_native

from qwen3asr_native import Aligner, ConversionError, Model, ModelFileError
from qwen3asr_native.files import hub
from qwen3asr_native.files.checkpoints import make_checkpoint
from qwen3asr_native.files.convert import convert
from qwen3asr_native.files.ggmm import GgmmFile

pytest.importorskip("safetensors")


def _tensors(path: Path) -> dict[str, bytes]:
    with GgmmFile(path) as file:
        return {name: file.rows(tensor, 0, tensor.rows).tobytes() for name, tensor in file.tensors.items()}


@pytest.mark.parametrize(("tied", "shards"), [(True, 1), (False, 3)])
def test_both_layouts_give_the_same_tensors_vocabulary_and_answers(
    tmp_path: Path, tied: bool, shards: int
) -> None:
    original = make_checkpoint(tmp_path / "original", text={"vocab_size": 400}, tied=tied)
    native = to_native(original, tmp_path / "native", shards)
    files = [convert(source, tmp_path / f"{source.name}.bin", "q4_0") for source in (original, native)]
    assert _tensors(files[0]) == _tensors(files[1])
    with GgmmFile(files[0]) as a, GgmmFile(files[1]) as b:
        assert a.vocabulary == b.vocabulary
        assert a.configuration[: 4 * 152] == b.configuration[: 4 * 152]  # then come the rotary sections
        assert len(b.metadata["config.json"]["support_languages"]) == 30
    tone = (0.1 * np.sin(np.arange(20000) * 0.2)).astype(np.float32)
    logits = []
    for file in files:
        with Model(file) as model:
            logits.append(model.prefill_logits(tone, "Chinese", sample_rate=16000))
    assert np.array_equal(*logits)


def test_a_checkpoint_in_the_native_layout_is_loaded_directly(tmp_path: Path) -> None:
    native = to_native(make_checkpoint(tmp_path / "original", text={"vocab_size": 400}), tmp_path / "native")
    with Model(native) as model:
        assert model.info["tensor_type"] == "q8_0"
        assert "Cantonese" in model.info["languages"]


def test_the_native_aligner_is_told_by_its_class(tmp_path: Path) -> None:
    original = make_checkpoint(tmp_path / "original", text={"vocab_size": 400}, aligner=True)
    native = to_native(original, tmp_path / "native")
    files = [convert(source, tmp_path / f"{source.name}.bin", "q8_0") for source in (original, native)]
    assert _tensors(files[0]) == _tensors(files[1])
    with pytest.raises(ModelFileError, match="forced aligner"):
        Model(native)
    with Aligner(native) as aligner:
        assert (aligner.info["classes"], aligner.info["class_ms"]) == (5000, 80)


def test_the_reference_checkpoint_in_the_native_layout_gives_the_reference_logits(golden: Path) -> None:
    with Model(golden / "native" / "tiny-hf-native", dtype="f16", kernels="generic") as model:
        logits = model.prefill_logits(golden / "g6.wav")
    assert np.abs(logits - np.load(golden / "g6.npz")["window_logits"]).max() < 1e-4


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("tokenizer.json", None, "lacks tokenizer.json"),
        ("processor_config.json", None, "lacks processor_config.json"),
        ("tokenizer.json", "{}", "tokenizer.json"),
        ("tokenizer.json", "[" * 100_000, "nested too deep"),
        ("config.json", "[" * 100_000, "nested too deep"),
        ("tokenizer.json", '{"added_tokens": [], "model": {"vocab": {}, "merges": []}}', "endoftext"),
        ("processor_config.json", "{}", "feature_extractor"),
    ],
)
def test_what_is_missing_or_broken_is_said(tmp_path: Path, file: str, content: str | None, said: str) -> None:
    native = to_native(make_checkpoint(tmp_path / "original", text={"vocab_size": 400}), tmp_path / "native")
    (native / file).unlink()
    if content is not None:
        (native / file).write_text(content)
    with pytest.raises(ConversionError, match=said):
        convert(native, tmp_path / "out.bin")
    with pytest.raises(ConversionError, match=said):
        Model(native)


def test_a_rotary_scaling_that_the_engine_does_not_compute_is_refused(tmp_path: Path) -> None:
    native = to_native(make_checkpoint(tmp_path / "original", text={"vocab_size": 400}), tmp_path / "native")
    config = json.loads((native / "config.json").read_text())
    config["text_config"]["rope_parameters"] = {"rope_type": "yarn", "rope_theta": 1e6}
    (native / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConversionError, match="yarn"):
        convert(native, tmp_path / "out.bin")


def test_the_released_checkpoints_are_known_with_size_and_checksum() -> None:
    for name in ("Qwen3-ASR-0.6B-hf", "Qwen3-ASR-1.7B-hf", "Qwen3-ForcedAligner-0.6B-hf"):
        known = hub.KNOWN_MODELS[name]
        assert known.is_checkpoint
        assert known.size is not None
        assert known.size > 1_500_000_000
        assert known.sha256 is not None
        assert len(known.sha256) == 64
