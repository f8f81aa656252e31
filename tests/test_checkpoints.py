"""Random checkpoints of any size of the architecture."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import pytest
from reference_sets import SETS

from qwen3asr_native.errors import ConversionError
from qwen3asr_native.files.checkpoints import ADDED_TOKENS, main, make_checkpoint
from qwen3asr_native.files.convert import convert
from qwen3asr_native.files.ggmm import GgmmFile


@pytest.mark.parametrize("name", sorted(SETS))
def test_the_same_seed_gives_the_weights_the_references_were_computed_on(name: str, tmp_path: Path) -> None:
    checkpoint = SETS[name].make(tmp_path)
    assert hashlib.sha256((checkpoint / "model.safetensors").read_bytes()).hexdigest() == SETS[name].sha256


def test_another_seed_gives_other_weights(tmp_path: Path) -> None:
    weights = {
        (
            make_checkpoint(tmp_path / str(seed), text={"vocab_size": 400}, seed=seed) / "model.safetensors"
        ).read_bytes()
        for seed in (0, 1)
    }
    assert len(weights) == 2


def test_sizes_replace_those_of_the_preset(tmp_path: Path) -> None:
    source = make_checkpoint(
        tmp_path / "hf", text={"head_dim": 96, "vocab_size": 400}, audio={"d_model": 128}
    )
    with GgmmFile(convert(source, tmp_path / "m.bin", "q8_0")) as model:
        assert model.tensors["model.layers.0.self_attn.q_proj.weight"].shape == (4 * 96, 256)
        assert model.tensors["audio.ln_post.weight"].shape == (128,)
        assert model.tensors["multi_modal_projector.proj2.weight"].shape == (256, 128)


def test_added_tokens_follow_the_base_vocabulary(tmp_path: Path) -> None:
    source = make_checkpoint(tmp_path / "hf", text={"vocab_size": 1000}, base_tokens=900)
    vocabulary = json.loads((source / "vocab.json").read_text(encoding="utf-8"))
    added = json.loads((source / "tokenizer_config.json").read_text(encoding="utf-8"))["added_tokens_decoder"]
    assert sorted(vocabulary.values()) == list(range(900))
    assert [added[str(900 + index)]["content"] for index in range(len(ADDED_TOKENS))] == list(ADDED_TOKENS)
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    assert added[str(config["thinker_config"]["audio_token_id"])]["content"] == "<|audio_pad|>"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"preset": "9b"}, "unknown preset"),
        ({"dtype": "int3"}, "unknown dtype"),
        ({"text": {"vocab_size": 300}}, "do not fit a vocabulary of 300"),
        ({"text": {"hidden_size": 0}}, "no model has these sizes"),
    ],
)
def test_impossible_requests_are_refused(arguments: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match=message):
        make_checkpoint(tmp_path / "hf", **arguments)


def test_the_command_line_writes_a_checkpoint_and_its_model_file(tmp_path: Path) -> None:
    main([str(tmp_path / "small"), "--set", "text.vocab_size=400", "--tied", "--ggmm", "q4_0"])
    with GgmmFile(tmp_path / "small" / "small-q4_0.bin") as model:
        assert model.metadata["model_name"] == "small"
        assert model.tensors["model.embed_tokens.weight"].shape == (400, 256)


def test_the_command_line_explains_a_wrong_size(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        main([str(tmp_path / "small"), "--set", "head_dim=96"])
    assert "text.head_dim=96" in capsys.readouterr().err


def test_a_missing_package_is_named_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    with pytest.raises(SystemExit):
        main([str(tmp_path / "small")])
    assert "pip install 'qwen3asr-native[convert]'" in capsys.readouterr().err
    assert not (tmp_path / "small").exists()
