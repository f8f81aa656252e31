"""Hugging Face checkpoints of Qwen3-ASR and its forced aligner -> GGMM files; and GGMM files to other precisions.

The bytes are those that chatllm.cpp's own converter writes. No PyTorch: tensors are read one at a time, rounded a few
rows at a time, and written at once, so that memory stays far below the size of the model.
"""

from __future__ import annotations

import errno
import fnmatch
import json
import os
import secrets
import shutil
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable, NamedTuple, Union

import numpy as np

from ..errors import ConversionError, ModelFileError
from . import ggmm, native, tokens
from .architecture import head_dim, is_aligner, size, tensor_shapes
from .output import OutputError, target
from .quantization import LAYOUTS, Floats, TensorType, dequantize
from .quantization import quantize as round_values

PathLike = Union[str, "os.PathLike[str]"]
Progress = Callable[[int, int, str], None]
TensorTypes = Sequence[tuple[str, str]]

_METADATA_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer_config.json",
    "preprocessor_config.json",
    "chat_template.json",
)
_REQUIRED_FILES = (
    "config.json",
    "tokenizer_config.json",
    "preprocessor_config.json",
    "vocab.json",
    "merges.txt",
)
_ENCODER_NAMES = {
    "fc1": "mlp.fc0",
    "fc2": "mlp.fc1",
    "final_layer_norm": "post_attention_layernorm",
    "self_attn_layer_norm": "input_layernorm",
    "out_proj": "o_proj",
}
_CHUNK_ELEMENTS = (
    1 << 21
)  # values rounded at a time: the working memory of Q4_K is about 40 times that in bytes
# Settings of the encoder without a tensor of their size, and the most that the engine takes.
_WINDOWS = {"encoder_attention_heads": 512, "n_window": 1 << 14, "n_window_infer": 1 << 20}
_CLASS_MS = (1, 10_000)  # milliseconds of an aligner's time class
_NO_EXPERTS = (1, -1, -1, -1, 0)
_RESERVED_INTS = 128


class _Planned(NamedTuple):
    """One tensor of the output; ``rows(start, stop)`` gives its float32 rows [stop - start, last dimension]."""

    name: str
    shape: tuple[int, ...]
    kind: TensorType
    rows: Callable[[int, int], Floats]


def convert(
    hf_dir: PathLike,
    out: PathLike,
    type: str = "q4_0",
    tensor_types: TensorTypes = (),
    name: str | None = None,
    progress: Progress | None = None,
) -> Path:
    """Convert the checkpoint directory ``hf_dir`` to the GGMM file ``out``; return its path.

    :param type: ``f32``, ``f16``, ``q8_0``, ``q4_0``, ``q4_1`` or ``q4_k``. Tensors of one dimension stay F32; rows
        that the block size of the type does not divide become Q8_0 (for ``q4_k``) or F16.
    :param tensor_types: pairs of a shell pattern of GGMM tensor names and a type; the first match wins.
    :param name: the model's name in the file; by default the name of ``hf_dir``.
    :param progress: called with bytes written, bytes in all, and the tensor's name after each tensor.
    :raises ConversionError: the checkpoint is incomplete, damaged or of another model, or the file cannot be written.

    The output appears under its name only when it is complete.
    """
    source = _directory(hf_dir)
    main_type = _parse_type(type)
    checkpoint = _open_checkpoint(source)
    # A folder's name may be bytes that are no text.
    checkpoint.metadata["model_name"] = (name or source.resolve().name).encode("utf-8", "replace").decode()
    choose = _type_chooser(main_type, tensor_types)
    planned = [
        _Planned(tensor_name(tensor), shape, choose(tensor_name(tensor), shape), rows)
        for tensor, shape, rows in _checkpoint_tensors(source, checkpoint)
    ]
    tied = all(tensor.name != "lm_head.weight" for tensor in planned)
    with _usable(source / "config.json"):
        configuration = _configuration(checkpoint.config, main_type, tied)
    _check_rest(source, checkpoint)
    head = ggmm.encode_head(ggmm.encode_metadata(checkpoint.metadata), configuration, checkpoint.vocabulary)
    return _write(Path(out), head, planned, progress)


def quantize(
    in_bin: PathLike,
    out_bin: PathLike,
    type: str,
    tensor_types: TensorTypes = (),
    progress: Progress | None = None,
) -> Path:
    """Write the GGMM file ``in_bin`` with tensors of another ``type``; parameters and errors as of ``convert``.

    Best done from F32 or F16: rounding what was rounded before loses precision twice.
    """
    main_type = _parse_type(type)
    choose = _type_chooser(main_type, tensor_types)
    with ggmm.GgmmFile(in_bin) as source:
        if len(source.configuration) < 12:
            raise ModelFileError(f"{source.path} has no model configuration; download or convert it again")
        configuration = bytearray(source.configuration)
        struct.pack_into("<i", configuration, 8, main_type)
        planned = [
            _Planned(tensor.name, tensor.shape, choose(tensor.name, tensor.shape), _ggmm_rows(source, tensor))
            for tensor in source.tensors.values()
        ]
        head = ggmm.encode_head(source.metadata_bytes, bytes(configuration), source.vocabulary)
        return _write(Path(out_bin), head, planned, progress)


def _ggmm_rows(source: ggmm.GgmmFile, tensor: ggmm.Tensor) -> Callable[[int, int], Floats]:
    return lambda start, stop: dequantize(source.rows(tensor, start, stop), tensor.kind)


def _parse_type(name: str) -> TensorType:
    try:
        return TensorType[name.upper()]
    except KeyError:
        known = ", ".join(kind.name.lower() for kind in TensorType)
        raise ConversionError(f"unknown tensor type {name!r}; choose one of {known}") from None


def _type_chooser(main: TensorType, overrides: TensorTypes) -> Callable[[str, Sequence[int]], TensorType]:
    rules = [(pattern, _parse_type(kind)) for pattern, kind in overrides]

    def choose(name: str, shape: Sequence[int]) -> TensorType:
        if len(shape) == 1:
            return TensorType.F32
        wanted = next((kind for pattern, kind in rules if fnmatch.fnmatchcase(name, pattern)), main)
        candidates = (
            (wanted, TensorType.Q8_0, TensorType.F16)
            if wanted is TensorType.Q4_K
            else (wanted, TensorType.F16)
        )
        return next(kind for kind in candidates if shape[-1] % LAYOUTS[kind].elements == 0)

    return choose


def tensor_name(name: str) -> str:
    """The name in a GGMM file of a checkpoint's tensor."""
    short = name.removeprefix("thinker.")
    prefix = "audio_tower."
    if not short.startswith(prefix):
        return short
    parts = [_ENCODER_NAMES.get(part, part) for part in short[len(prefix) :].split(".")]
    owner = "multi_modal_projector" if parts[0] in ("proj1", "proj2") else "audio"
    return ".".join([owner, *parts])


def _read_json(path: Path) -> Any:
    try:
        value = json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_constant)
        json.dumps(value, ensure_ascii=False).encode("utf-8")
        return value
    except UnicodeEncodeError as error:
        raise ConversionError(
            f"cannot read {path}: {error.object[error.start : error.end]!a} is half of a character"
        ) from None
    except RecursionError:
        raise ConversionError(f"cannot read {path}: it is nested too deep for JSON of a checkpoint") from None
    except (OSError, ValueError) as error:
        raise ConversionError(f"cannot read {path}: {error}") from None


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


class _Checkpoint(NamedTuple):
    """A checkpoint as the original layout has it, whatever layout it is in."""

    config: dict[str, Any]
    metadata: dict[str, Any]
    vocabulary: bytes
    original_name: Callable[[str], str]  # of a tensor
    tokens_file: Path  # that says the added tokens
    front_end_file: Path


def _directory(path_or_name: PathLike) -> Path:
    """The directory of a checkpoint: a path, or the name of a known one that is downloaded."""
    source = Path(path_or_name)
    if not source.exists():
        from .hub import checkpoint

        try:
            source = checkpoint(path_or_name) or source
        except ModelFileError as error:
            raise ConversionError(*error.args) from None
    if not source.is_dir():
        raise ConversionError(f"{source} is not a directory; give the directory of a Hugging Face checkpoint")
    return source


def _require(source: Path, files: Iterable[str]) -> None:
    missing = [file for file in files if not (source / file).is_file()]
    if missing:
        raise ConversionError(f"{source} is no complete Qwen3-ASR checkpoint: it lacks {', '.join(missing)}")


def _open_checkpoint(source: Path) -> _Checkpoint:
    config = _read_json(source / "config.json") if (source / "config.json").is_file() else None
    in_native_layout = isinstance(config, dict) and native.is_native(config)
    if config is None or (isinstance(config, dict) and not in_native_layout):
        _require(source, _REQUIRED_FILES)
    if not isinstance(config, dict) or config.get("model_type") != "qwen3_asr":
        raise ConversionError(f"{source / 'config.json'} does not describe a Qwen3-ASR model")
    if in_native_layout:
        return _open_native(source, config)
    metadata = {file: _read_json(source / file) for file in _METADATA_FILES if (source / file).is_file()}
    return _Checkpoint(
        config,
        metadata,
        _read_vocabulary(source),
        lambda name: name,
        source / "tokenizer_config.json",
        source / "preprocessor_config.json",
    )


def _open_native(source: Path, config: dict[str, Any]) -> _Checkpoint:
    """A checkpoint in the layout of transformers 5."""
    nested = not (source / "preprocessor_config.json").is_file()
    processor_file = source / ("processor_config.json" if nested else "preprocessor_config.json")
    tokens_file = source / "tokenizer.json"
    _require(source, (tokens_file.name, "tokenizer_config.json", processor_file.name))
    tokenizer, tokenizer_config, processor = (
        _read_json(file) for file in (tokens_file, source / "tokenizer_config.json", processor_file)
    )
    if not isinstance(tokenizer_config, dict):
        raise _unusable(source / "tokenizer_config.json", "it is no object")
    with _usable(processor_file):
        front_end = tokens.part(processor, "feature_extractor") if nested else processor
        if not isinstance(front_end, dict):
            raise ValueError("it is no object")
        tokens.number(processor, "timestamp_segment_time", *_CLASS_MS)
    with _usable(tokens_file):
        added = native.added_tokens(tokenizer)
        ids = tokens.ids_of_added_tokens(added)
        tokens.check_special(ids, is_aligner(config))
        vocabulary = _encode_vocabulary(*native.vocabulary(tokenizer), tokens_file)
    classes = _aligner_classes(source) if is_aligner(config) else None
    with _usable(source / "config.json"):
        original = native.original_config(config, processor, ids, classes)
    metadata: dict[str, Any] = {
        "config.json": original,
        "tokenizer_config.json": {**tokenizer_config, "added_tokens_decoder": added},
        "preprocessor_config.json": front_end,
    }
    if (source / "generation_config.json").is_file():
        metadata["generation_config.json"] = _read_json(source / "generation_config.json")
    return _Checkpoint(original, metadata, vocabulary, native.tensor_name, tokens_file, processor_file)


def _check_rest(source: Path, checkpoint: _Checkpoint) -> None:
    """What no tensor's shape and no number of the configuration depends on, and the engine reads all the same."""
    thinker = checkpoint.config["thinker_config"]
    with _usable(source / "config.json"):
        for name, most in _WINDOWS.items():
            size(thinker["audio_config"], name, most)
        tokens.number(thinker["text_config"], "rms_norm_eps", 1e-12, 0.1)
        tokens.number(checkpoint.config, "timestamp_segment_time", *_CLASS_MS)
    with _usable(checkpoint.tokens_file):
        added = tokens.part(checkpoint.metadata["tokenizer_config.json"], "added_tokens_decoder")
        ids = tokens.ids_of_added_tokens(added)
        tokens.check_special(ids, is_aligner(checkpoint.config))
        tokens.check_places(ids, thinker["text_config"]["vocab_size"])
    with _usable(checkpoint.front_end_file):
        mel_bins = thinker["audio_config"]["num_mel_bins"]
        tokens.check_front_end(checkpoint.metadata["preprocessor_config.json"], mel_bins)


def _aligner_classes(source: Path) -> int:
    """The number of time classes of an aligner in the layout of transformers 5: rows of its head."""
    for shard in _shards(source):
        for name, shape in _shard_contents(shard):
            if name == "score.weight":
                return shape[0]
    raise ConversionError(f"{source} lacks score.weight; download it again")


def _shards(source: Path) -> list[Path]:
    index = source / "model.safetensors.index.json"
    if index.is_file():
        contents = _read_json(index)
        weight_map = contents.get("weight_map") if isinstance(contents, dict) else None
        if not isinstance(weight_map, dict) or not weight_map:
            raise ConversionError(f"{index} has no weight map")
        names = sorted({str(file) for file in weight_map.values()})
    else:
        names = ["model.safetensors"]
    for name in names:
        if os.path.basename(name) != name or not (source / name).is_file():
            raise ConversionError(f"{source} lacks its weights file {name!r}; download it again")
    return [source / name for name in names]


def _unusable(file: Path, reason: object) -> ConversionError:
    return ConversionError(f"{file} is not usable: {reason}")


@contextmanager
def _usable(file: Path) -> Iterator[None]:
    """What is said to be wrong in the block is wrong in the file."""
    try:
        yield
    except ValueError as error:
        raise _unusable(file, error) from None


def _checkpoint_tensors(
    source: Path, checkpoint: _Checkpoint
) -> Iterator[tuple[str, tuple[int, ...], Callable[[int, int], Floats]]]:
    """Name, shape and row reader of every tensor, in the order of the shards; checks that none is missing."""
    config = checkpoint.config
    with _usable(source / "config.json"):
        expected = tensor_shapes(config)
    may_be_missing = set() if is_aligner(config) else {"thinker.lm_head.weight"}
    seen = set()
    for shard in _shards(source):
        for stored, shape in _shard_contents(shard):
            name = checkpoint.original_name(stored)
            if shape != expected.get(name, shape):
                raise ConversionError(
                    f"{shard}: {stored} has shape {shape}, but config.json says {expected[name]}"
                )
            seen.add(name)
            yield name, shape, _SafetensorsRows(shard, stored)
    missing = sorted(set(expected) - seen - may_be_missing)
    if missing:
        raise ConversionError(f"{source} lacks {len(missing)} tensors, first {missing[0]}; download it again")


@contextmanager
def checkpoint_packages() -> Iterator[None]:
    """For imports that checkpoints need.

    :raises ConversionError: a package of the extra is missing.
    """
    try:
        yield
    except ImportError:
        raise ConversionError(
            "checkpoints need packages more: pip install 'qwen3asr-native[convert]'"
        ) from None


def _open_shard(path: Path) -> Any:
    with checkpoint_packages():
        import ml_dtypes  # noqa: F401  (gives NumPy the bfloat16 that safetensors asks for)
        from safetensors import SafetensorError, safe_open
    try:
        return safe_open(str(path), framework="numpy")
    except (SafetensorError, OSError) as error:
        raise ConversionError(f"cannot read {path}: {error}") from None


def _shard_contents(path: Path) -> list[tuple[str, tuple[int, ...]]]:
    with _open_shard(path) as shard:
        names: list[str] = shard.keys()
        return [(name, tuple(shard.get_slice(name).get_shape())) for name in names]


class _SafetensorsRows:
    """Reads rows of one tensor; the file is mapped only from the first row to the last, to keep memory low."""

    def __init__(self, shard: Path, name: str) -> None:
        self._shard, self._name = shard, name

    def __call__(self, start: int, stop: int) -> Floats:
        with _open_shard(self._shard) as shard:
            tensor = shard.get_slice(self._name)
            shape = tensor.get_shape()
            if len(shape) == 1:
                part = np.asarray(tensor[:])[None]
            elif len(shape) == 2:
                part = np.asarray(tensor[start:stop])
            else:
                part = np.asarray(tensor[:]).reshape(-1, shape[-1])[start:stop]
        values = part.astype(np.float32)
        if not np.isfinite(values).all():
            raise ConversionError(
                f"{self._shard}: {self._name} has values that are not finite; download it again"
            )
        return values


def _read_vocabulary(source: Path) -> bytes:
    vocabulary = _read_json(source / "vocab.json")
    try:
        lines = (source / "merges.txt").read_text(encoding="utf-8").split("\n")
    except (OSError, ValueError) as error:
        raise ConversionError(f"cannot read {source / 'merges.txt'}: {error}") from None
    with _usable(source / "merges.txt"):
        merges = tokens.merges([line for line in lines if line and not line.startswith("#version")])
    return _encode_vocabulary(vocabulary, merges, source / "vocab.json")


def _encode_vocabulary(vocabulary: Any, merges: Sequence[str], file: Path) -> bytes:
    with _usable(file):
        return ggmm.encode_vocabulary(tokens.in_order(vocabulary), merges)


def _token_id(value: Any) -> int:
    first = value[0] if isinstance(value, list) and value else value
    return first if isinstance(first, int) and -1 <= first < 1 << 31 else -1


def _rope(text: Mapping[str, Any]) -> tuple[float, list[int]]:
    """Base and sections of the rotary embedding. Raises ValueError, which names what is wrong."""
    theta, scaling = text.get("rope_theta", 1e6), text.get("rope_scaling") or {}
    if not isinstance(theta, (int, float)) or not 1 < theta < 1e30:
        raise ValueError(f"rope_theta is {str(theta)[:40]!r}, which is no number above 1")
    sections = scaling.get("mrope_section", []) if isinstance(scaling, dict) else None
    if not isinstance(sections, list) or not all(isinstance(n, int) and 0 <= n < 1 << 31 for n in sections):
        raise ValueError("rope_scaling has no list of whole numbers as its mrope_section")
    return float(theta), sections[:4]


def _configuration(config: Mapping[str, Any], kind: TensorType, tied: bool) -> bytes:
    thinker = config["thinker_config"]
    text = thinker["text_config"]
    theta, sections = _rope(text)
    positions = size(text, "max_position_embeddings", 1 << 30) if "max_position_embeddings" in text else 65536
    aligner = is_aligner(config)
    ids = [
        _token_id(text.get(f"{role}_token_id", thinker.get(f"{role}_token_id")))
        for role in ("bos", "eos", "pad")
    ]
    fields = struct.pack("<2i", ggmm.MODEL_ALIGNER if aligner else ggmm.MODEL_ASR, 1)
    fields += struct.pack(
        "<11i",
        *(
            kind,
            text["vocab_size"],
            text["hidden_size"],
            text["num_attention_heads"],
            text["num_hidden_layers"],
        ),
        *(text["intermediate_size"], positions, *ids, -1),
    )
    fields += struct.pack("<2i", text["num_key_value_heads"], head_dim(text))
    fields += struct.pack("<2f", theta, -1.0)
    fields += struct.pack("<7i", -1, *_NO_EXPERTS, int(tied))
    fields += bytes(4 * _RESERVED_INTS)
    fields += struct.pack("<4i", *sections, *[0] * (4 - len(sections)))
    return fields + (struct.pack("<i", thinker["classify_num"]) if aligner else b"")


def _write(out: Path, head: bytes, planned: Sequence[_Planned], progress: Progress | None) -> Path:
    """Write the file beside its place, make sure that it is on the disk, then give it its name."""
    total = len(head)
    for tensor in planned:
        total += len(ggmm.tensor_header(tensor.name, tensor.shape, tensor.kind, total))
        total += int(np.prod(tensor.shape[:-1], dtype=np.int64)) * ggmm.row_bytes(tensor.shape, tensor.kind)
    try:
        out = target(out)
        out.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(out.parent).free
        if free < total:
            raise ConversionError(f"{out} needs {total:,} bytes, but only {free:,} are free on its disk")
    except OutputError as error:
        raise ConversionError(str(error)) from None
    except OSError as error:
        raise ConversionError(f"cannot write {out}: {error.strerror}") from None
    # Its name is known before it exists, so that no interruption can leave it behind.
    partial = out.parent / f".{out.name}.{secrets.token_hex(4)}.partial"
    try:
        with open(partial, "xb") as file:
            file.write(head)
            position = len(head)
            for tensor in planned:
                header = ggmm.tensor_header(tensor.name, tensor.shape, tensor.kind, position)
                position += file.write(header)
                for block in _rounded(tensor):
                    position += file.write(block)
                if progress is not None:
                    progress(position, total, tensor.name)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, out)
    except OSError as error:
        reason = "the disk is full" if error.errno == errno.ENOSPC else error.strerror
        raise ConversionError(f"cannot write {out}: {reason}") from None
    finally:
        if os.path.exists(partial):
            os.unlink(partial)
    _sync_directory(out.parent)
    return out


def _rounded(tensor: _Planned) -> Iterator[bytes]:
    rows = int(np.prod(tensor.shape[:-1], dtype=np.int64))
    step = max(1, _CHUNK_ELEMENTS // tensor.shape[-1])
    for start in range(0, rows, step):
        with np.errstate(over="ignore"):
            data = round_values(tensor.rows(start, min(rows, start + step)), tensor.kind)
        if tensor.kind is TensorType.F16 and not np.isfinite(data.view(np.float16)).all():
            raise ConversionError(f"{tensor.name} has values beyond the range of F16; convert it to f32")
        yield data.tobytes()


def _sync_directory(directory: Path) -> None:
    """Make the new name survive a power failure, where the system can do that for directories."""
    if hasattr(os, "O_DIRECTORY"):
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
