"""The script that runs the official code; skipped where the extra ``[reference]`` is not installed."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from reference_sets import DIRECTORY, SETS, SPEECH

ROOT = Path(__file__).resolve().parents[1]
GOLDEN = ROOT.parent / "shared" / "golden"


def _official(checkpoint: Path):
    pytest.importorskip("torch", reason="the extra [reference] is not installed")
    pytest.importorskip("transformers", reason="the extra [reference] is not installed")
    from qwen3asr_native.errors import Qwen3AsrError
    from qwen3asr_native.lab.reference import load_official

    try:
        return load_official(checkpoint)
    except Qwen3AsrError as error:
        pytest.skip(str(error))


def _assert_same(ours: dict, stored: np.lib.npyio.NpzFile) -> None:
    for key in stored.files:
        if stored[key].dtype.kind == "f":
            difference = np.sqrt(np.mean((ours[key] - stored[key]) ** 2) / np.mean(stored[key] ** 2))
            assert difference < 1e-5, key
        else:
            assert np.array_equal(ours[key], stored[key]), key


@pytest.mark.parametrize("name", sorted(SETS))
def test_reproduces_the_stored_outputs_of_odd_shapes(name: str, tmp_path: Path) -> None:
    official = _official(SETS[name].make(tmp_path))
    import soundfile

    from qwen3asr_native.lab.reference import reference

    samples, _ = soundfile.read(str(SPEECH), dtype="float32")
    with np.load(DIRECTORY / f"{name}.npz") as stored:
        _assert_same(reference(official, samples, SETS[name].language, SETS[name].context), stored)


@pytest.mark.skipif(not GOLDEN.is_dir(), reason="the golden files are not beside this checkout")
@pytest.mark.parametrize(
    ("name", "audio", "language", "context"),
    [("g1", "g1", None, ""), ("g6zh", "g6", "Chinese", "Preserve spelling: PostgreSQL")],
)
def test_reproduces_the_golden_outputs(name: str, audio: str, language: str, context: str) -> None:
    official = _official(GOLDEN / "tiny-hf")
    import soundfile

    from qwen3asr_native.lab.reference import reference

    samples, _ = soundfile.read(str(GOLDEN / f"{audio}.wav"), dtype="float32")
    with np.load(GOLDEN / f"{name}.npz") as stored:
        _assert_same(reference(official, samples, language, context), stored)


def test_the_training_network_of_the_mini_model_computes_what_the_official_code_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = pytest.importorskip("torch", reason="the extra [reference] is not installed")
    pytest.importorskip("scipy", reason="the recipe's requirements are not installed")
    monkeypatch.setattr(sys, "path", [*sys.path, str(ROOT)])  # the recipe is no part of the package
    from models.mini import checkpoint
    from models.mini.network import MiniASR

    torch.manual_seed(0)
    config = checkpoint.create(tmp_path)
    network = MiniASR(config["thinker_config"]).eval()
    checkpoint.save_weights(tmp_path, network.state_dict())
    official = _official(tmp_path)
    from qwen3asr_native.lab.reference import reference

    generator = np.random.default_rng(0)
    clips = [generator.standard_normal(count).astype(np.float32) * 0.1 for count in (9000, 68_800, 150_000)]
    expected = [reference(official, clip, tokens=1) for clip in clips]
    with torch.no_grad():
        encoded, valid = network.audio_tower([torch.from_numpy(arrays["mel"]) for arrays in expected])
        for row, mask, arrays in zip(encoded, valid, expected):
            audio = row[mask]
            hidden = network.model(network.embed(torch.from_numpy(arrays["prompt_ids"])[None], audio))
            logits = network.logits(hidden[0, -1])
            assert np.allclose(audio.numpy(), arrays["window_encoder"], atol=1e-4)
            assert np.allclose(logits.numpy(), arrays["window_logits"], atol=1e-3)


def test_a_directory_without_a_checkpoint_is_named(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="the extra [reference] is not installed")
    from qwen3asr_native.errors import Qwen3AsrError
    from qwen3asr_native.lab.reference import load_official

    with pytest.raises(Qwen3AsrError):
        load_official(tmp_path)
