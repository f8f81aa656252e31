"""Conversion of checkpoints to GGMM files, and the rounding of their tensors."""

from __future__ import annotations

import json
import os
import shutil
import struct
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable

import numpy as np
import pytest
from native_layout import to_native

from qwen3asr_native.errors import ConversionError, ModelFileError
from qwen3asr_native.files import convert as conversion
from qwen3asr_native.files.checkpoints import make_checkpoint
from qwen3asr_native.files.convert import convert, quantize
from qwen3asr_native.files.ggmm import GgmmFile
from qwen3asr_native.files.quantization import LAYOUTS, TensorType, dequantize
from qwen3asr_native.files.quantization import quantize as round_values

if TYPE_CHECKING:
    from collections.abc import Iterator

GOLDEN = Path(__file__).resolve().parents[2] / "shared" / "golden"
needs_golden = pytest.mark.skipif(not GOLDEN.is_dir(), reason="the golden files are not beside this checkout")
QUANTIZED = [TensorType.Q8_0, TensorType.Q4_0, TensorType.Q4_1, TensorType.Q4_K]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("checkpoints") / "small", text={"vocab_size": 512}, seed=3)


@needs_golden
@pytest.mark.parametrize("kind", ["f16", "q8_0", "q4_0", "q4_1", "q4_k"])
def test_converts_to_the_same_bytes_as_chatllm(kind: str, tmp_path: Path) -> None:
    out = convert(GOLDEN / "tiny-hf", tmp_path / "tiny.bin", kind, name="tiny")
    assert out.read_bytes() == (GOLDEN / f"tiny-{kind}.bin").read_bytes()


@needs_golden
def test_quantizing_a_ggmm_file_equals_converting_the_checkpoint(tmp_path: Path) -> None:
    out = quantize(GOLDEN / "tiny-f16.bin", tmp_path / "tiny.bin", "q8_0")
    assert out.read_bytes() == (GOLDEN / "tiny-q8_0.bin").read_bytes()


def test_shards_give_the_same_file_as_a_single_one(checkpoint: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    sharded = tmp_path / "sharded"
    shutil.copytree(checkpoint, sharded)
    tensors = load_file(str(sharded / "model.safetensors"))
    (sharded / "model.safetensors").unlink()
    names = sorted(tensors)
    weight_map = {}
    for number, part in enumerate((names[: len(names) // 2], names[len(names) // 2 :]), 1):
        file = f"model-0000{number}-of-00002.safetensors"
        save_file({name: tensors[name] for name in part}, str(sharded / file))
        weight_map.update(dict.fromkeys(part, file))
    (sharded / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    whole = convert(checkpoint, tmp_path / "a.bin", "q4_0", name="same")
    parts = convert(sharded, tmp_path / "b.bin", "q4_0", name="same")
    assert whole.read_bytes() == parts.read_bytes()


@pytest.mark.parametrize("dtype", ["f16", "f32"])
def test_reads_checkpoints_of_other_number_types(dtype: str, tmp_path: Path) -> None:
    source = make_checkpoint(tmp_path / "hf", text={"vocab_size": 512}, dtype=dtype, seed=5)
    with GgmmFile(convert(source, tmp_path / "m.bin", "f32")) as model:
        weights = model.values("model.layers.0.mlp.up_proj.weight")
    assert 0.9 < np.std(weights) * np.sqrt(weights.shape[1]) < 1.1


def test_the_first_matching_pattern_chooses_the_type_of_a_tensor(checkpoint: Path, tmp_path: Path) -> None:
    rules = [("lm_head.*", "q8_0"), ("audio.*", "f16"), ("audio.layers.*", "q4_1")]
    with GgmmFile(convert(checkpoint, tmp_path / "m.bin", "q4_0", tensor_types=rules)) as model:
        kinds = {name: tensor.kind for name, tensor in model.tensors.items()}
    assert kinds["lm_head.weight"] is TensorType.Q8_0
    assert kinds["audio.layers.0.mlp.fc0.weight"] is TensorType.F16
    assert kinds["model.embed_tokens.weight"] is TensorType.Q4_0
    assert kinds["model.norm.weight"] is TensorType.F32


def test_rows_that_no_block_divides_fall_back(tmp_path: Path) -> None:
    sizes = {"hidden_size": 96, "intermediate_size": 112, "vocab_size": 400}
    source = make_checkpoint(tmp_path / "hf", text=sizes)
    with GgmmFile(convert(source, tmp_path / "m.bin", "q4_k")) as model:
        assert model.tensors["model.layers.0.mlp.up_proj.weight"].kind is TensorType.Q8_0
        assert model.tensors["model.layers.0.mlp.down_proj.weight"].kind is TensorType.F16
        assert model.tensors["audio.layers.0.mlp.fc0.weight"].kind is TensorType.Q4_K
        assert model.tensors["audio.conv2d2.weight"].kind is TensorType.F16


def test_a_tied_checkpoint_says_so_in_the_configuration(tmp_path: Path) -> None:
    for tied in (False, True):
        source = make_checkpoint(tmp_path / str(tied), text={"vocab_size": 400}, tied=tied)
        with GgmmFile(convert(source, tmp_path / "m.bin", "f16")) as model:
            assert struct.unpack_from("<i", model.configuration, 4 * 23)[0] == int(tied)
            assert ("lm_head.weight" in model.tensors) is not tied


def test_a_forced_aligner_has_its_own_type_and_number_of_bins(tmp_path: Path) -> None:
    source = make_checkpoint(tmp_path / "hf", text={"vocab_size": 400}, aligner=True)
    with GgmmFile(convert(source, tmp_path / "m.bin", "q8_0")) as model:
        assert struct.unpack_from("<i", model.configuration)[0] == 0x04000002
        assert struct.unpack_from("<i", model.configuration, len(model.configuration) - 4)[0] == 5000
        assert model.tensors["lm_head.weight"].shape == (5000, 256)


def test_progress_ends_at_the_size_of_the_file(checkpoint: Path, tmp_path: Path) -> None:
    calls: list[tuple[int, int, str]] = []
    out = convert(checkpoint, tmp_path / "m.bin", "q4_0", progress=lambda *call: calls.append(call))
    assert [done for done, _, _ in calls] == sorted(done for done, _, _ in calls)
    assert calls[-1][0] == calls[-1][1] == out.stat().st_size


@pytest.mark.parametrize("kind", QUANTIZED)
def test_zeros_stay_zeros_without_a_warning(kind: TensorType) -> None:
    zeros = np.zeros((3, 512), np.float32)
    with np.errstate(all="raise"):
        assert np.array_equal(dequantize(round_values(zeros, kind), kind), zeros)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", QUANTIZED)
def test_the_smallest_values_become_zeros_without_a_warning(kind: TensorType) -> None:
    values = np.random.default_rng(0).standard_normal((40, 256), dtype=np.float32)
    values *= 10.0 ** -np.arange(10, 50, dtype=np.float64)[:, None]
    assert np.array_equal(dequantize(round_values(values, kind), kind), np.zeros_like(values))


@pytest.mark.parametrize(("kind", "tolerance"), list(zip(QUANTIZED, (0.008, 0.09, 0.08, 0.08))))
def test_rounding_error_is_that_of_the_number_of_bits(kind: TensorType, tolerance: float) -> None:
    values = np.random.default_rng(0).standard_normal((8, 1024), dtype=np.float32)
    data = round_values(values, kind)
    assert data.shape == (8, 1024 // LAYOUTS[kind].elements * LAYOUTS[kind].size)
    error = dequantize(data, kind) - values
    assert np.sqrt(np.mean(error**2)) < tolerance


def _remove(name: str) -> Callable[[Path], Any]:
    return lambda directory: (directory / name).unlink()


def _truncate_weights(directory: Path) -> None:
    weights = directory / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])


def _other_model(directory: Path) -> None:
    (directory / "config.json").write_text('{"model_type": "whisper"}')


def _other_size(directory: Path) -> None:
    config = json.loads((directory / "config.json").read_text())
    config["thinker_config"]["text_config"]["hidden_size"] = 128
    (directory / "config.json").write_text(json.dumps(config))


def _more_layers(directory: Path) -> None:
    config = json.loads((directory / "config.json").read_text())
    config["thinker_config"]["text_config"]["num_hidden_layers"] = 4
    (directory / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_remove("merges.txt"), "lacks merges.txt"),
        (_remove("model.safetensors"), "lacks its weights file"),
        (_truncate_weights, "cannot read"),
        (_other_model, "does not describe a Qwen3-ASR model"),
        (_other_size, "but config.json says"),
        (_more_layers, "lacks 11 tensors"),
    ],
)
def test_a_damaged_checkpoint_is_named(
    damage: Callable[[Path], Any], message: str, checkpoint: Path, tmp_path: Path
) -> None:
    source = tmp_path / "hf"
    shutil.copytree(checkpoint, source)
    damage(source)
    with pytest.raises(ConversionError, match=message):
        convert(source, tmp_path / "m.bin")
    assert not list(tmp_path.glob("*m.bin*"))


def test_values_that_are_not_finite_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    source = tmp_path / "hf"
    shutil.copytree(checkpoint, source)
    weights = source / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-2:] = b"\xc0\x7f"  # a bfloat16 NaN
    weights.write_bytes(data)
    with pytest.raises(ConversionError, match="not finite"):
        convert(source, tmp_path / "m.bin")
    assert not list(tmp_path.glob("*m.bin*"))


def test_an_unknown_type_is_answered_with_the_known_ones(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match="q4_0, q4_1"):
        convert(checkpoint, tmp_path / "m.bin", "q5_0")


def test_a_full_disk_is_reported_before_anything_is_written(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(conversion.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(ConversionError, match="only 1,000 are free"):
        convert(checkpoint, tmp_path / "m.bin")
    assert not list(tmp_path.glob("*m.bin*"))


def test_an_interruption_leaves_the_old_file_alone(checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.bin"
    out.write_bytes(b"old")

    def interrupt(done: int, total: int, name: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(checkpoint, out, progress=interrupt)
    assert out.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["m.bin"]


def test_every_truncation_of_a_model_file_is_an_error(checkpoint: Path, tmp_path: Path) -> None:
    data = convert(checkpoint, tmp_path / "m.bin", "q4_0").read_bytes()
    short = tmp_path / "short.bin"
    for size in (0, 3, 19, 20, 500, len(data) // 2, len(data) - 1):
        short.write_bytes(data[:size])
        with pytest.raises(ModelFileError):
            quantize(short, tmp_path / "out.bin", "q8_0")


def test_a_file_of_another_kind_is_no_model(tmp_path: Path) -> None:
    other = tmp_path / "other.bin"
    other.write_bytes(b"RIFF" + bytes(100))
    with pytest.raises(ModelFileError, match="not a GGMM model file"):
        quantize(other, tmp_path / "out.bin", "q8_0")
    with pytest.raises(ModelFileError, match="cannot open"):
        quantize(tmp_path / "missing.bin", tmp_path / "out.bin", "q8_0")


def _smallest(out: Path, aligner: bool = False) -> Path:
    return make_checkpoint(
        out,
        audio={"d_model": 16, "encoder_layers": 1, "encoder_ffn_dim": 16, "downsample_hidden_size": 8},
        text={
            "vocab_size": 400,
            "hidden_size": 32,
            "num_hidden_layers": 1,
            "head_dim": 16,
            "intermediate_size": 32,
        },
        seed=3,
        aligner=aligner,
    )


_WRONG = ("missing", None, "x", -1, 0.5, 10**20, [], {})


def _fields(part: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, value in part.items():
        yield (*path, name)
        if isinstance(value, dict):
            yield from _fields(value, (*path, name))


def _places(part: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of the fields; of many that are alike, the first and the last."""
    yield path
    items = list(
        part.items() if isinstance(part, dict) else enumerate(part) if isinstance(part, list) else ()
    )
    for name, value in items if len(items) < 20 else (items[0], items[-1]):
        yield from _places(value, (*path, name))


def _with(whole: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    copy = json.loads(json.dumps(whole))
    part = copy
    for name in path[:-1]:
        part = part[name]
    if value == "missing":
        del part[path[-1]]
    else:
        part[path[-1]] = value
    return copy


def test_every_field_of_a_configuration_that_is_wrong_is_named(tmp_path: Path) -> None:
    source = _smallest(tmp_path / "hf")
    file = source / "config.json"
    good = json.loads(file.read_text())
    refused = set()
    for path in _fields(good):
        for value in ("missing", None, "x", -1, 0, 0.5, 10**9, 10**20, [], {}):
            file.write_text(json.dumps(_with(good, path, value)))
            try:
                convert(source, tmp_path / "out.bin", "q8_0")
            except ConversionError as error:
                said = str(error)
                refused.add(path[-1])
                assert str(source) in said, (path, value)
                # A part that is empty lacks its first size; a wrong size may be found by a tensor of another.
                named = path[-1] in said or value == {} or "has shape" in said or "model_type" in path
                assert named, (path, value, said)
    assert {
        "d_model",
        "encoder_layers",
        "vocab_size",
        "num_hidden_layers",
        "rope_theta",
        "mrope_section",
    } <= refused


@pytest.mark.parametrize("layout", ["original", "native", "native aligner"])
def test_every_field_of_a_tokenizer_and_a_front_end_that_is_wrong_is_named(
    layout: str, tmp_path: Path
) -> None:
    source = _smallest(tmp_path / "hf", "aligner" in layout)
    if "native" in layout:
        source = to_native(source, tmp_path / "native")
    refused = set()
    for file in sorted(source.glob("*.json")):
        if file.name == "config.json":
            continue
        good = file.read_text(encoding="utf-8")
        for path in _places(json.loads(good)):
            for value in _WRONG:
                file.write_text(json.dumps(_with(json.loads(good), path, value)), encoding="utf-8")
                try:
                    convert(source, tmp_path / "out.bin", "q8_0")
                except ConversionError as error:
                    said = str(error)
                    named = [name for name in path if isinstance(name, str)][-1:]
                    refused.update(named)
                    assert (str(file) in said, "Error(" in said) == (True, False), (path, value, said)
                    # Of what a part contains, what is missed first may be said instead.
                    assert value in ("missing", None, [], {}) or not named or named[0] in said, (
                        path,
                        value,
                        said,
                    )
        file.write_text(good, encoding="utf-8")
    assert {"content", "hop_length", "n_fft", "feature_size", "!"} <= refused
    assert ("added_tokens_decoder" if layout == "original" else "id") in refused
    convert(source, tmp_path / "out.bin", "q8_0")


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("vocab.json", '{"\\ud800": 0}', "half of a character"),
        ("generation_config.json", '{"temperature": NaN}', "NaN is no number"),
        (
            "tokenizer_config.json",
            '{"added_tokens_decoder": {"9": {"content": "\\udfff"}}}',
            "half of a character",
        ),
        ("merges.txt", "#version: 0.2\na b c\n", "merge 0 of merges is 'a b c'"),
        ("preprocessor_config.json", '{"sampling_rate": 8000}', "sampling_rate is '8000', but this engine"),
        ("config.json", "[]", "does not describe a Qwen3-ASR model"),
    ],
)
def test_text_and_numbers_that_no_model_file_can_hold_are_refused(
    file: str, content: str, said: str, tmp_path: Path
) -> None:
    source = _smallest(tmp_path / "hf")
    (source / file).write_text(content, encoding="utf-8")
    with pytest.raises(ConversionError, match=said) as caught:
        convert(source, tmp_path / "out.bin", "q8_0")
    assert str(source / file) in str(caught.value)
    assert not (tmp_path / "out.bin").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a file's name is text")
def test_a_checkpoint_in_a_folder_whose_name_is_no_text_is_converted(tmp_path: Path) -> None:
    source = _smallest(tmp_path / "hf")
    odd = source.rename(tmp_path / os.fsdecode(b"\xffx"))
    with GgmmFile(convert(odd, tmp_path / "out.bin", "q8_0")) as file:
        assert file.metadata["model_name"] == "?x"
