"""Random checkpoints of any size of the Qwen3-ASR architecture, for measurements and tests that need no trained weights.

``python -m qwen3asr_native.files.checkpoints OUT --preset 0.6b`` writes a Hugging Face checkpoint directory; with
``--ggmm q4_0`` also the GGMM file beside it. Everything follows from the seed: the same call gives the same bytes.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Union

import numpy as np
from numpy.typing import NDArray

from ..errors import ConversionError
from .architecture import Shape, tensor_shapes
from .convert import PathLike, checkpoint_packages, convert

Overrides = Mapping[str, Union[int, float, bool]]

# (audio_config, text_config) of each preset; sizes of the released models, and a small one.
PRESETS: dict[str, tuple[dict[str, int], dict[str, int]]] = {
    "tiny": (
        {
            "d_model": 256,
            "encoder_layers": 3,
            "encoder_attention_heads": 4,
            "encoder_ffn_dim": 512,
            "downsample_hidden_size": 32,
        },
        {
            "hidden_size": 256,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 64,
            "intermediate_size": 512,
            "vocab_size": 2080,
        },
    ),
    "0.6b": (
        {
            "d_model": 896,
            "encoder_layers": 18,
            "encoder_attention_heads": 14,
            "encoder_ffn_dim": 3584,
            "downsample_hidden_size": 480,
        },
        {
            "hidden_size": 1024,
            "num_hidden_layers": 28,
            "num_attention_heads": 16,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "intermediate_size": 3072,
            "vocab_size": 151_936,
        },
    ),
    "1.7b": (
        {
            "d_model": 1024,
            "encoder_layers": 24,
            "encoder_attention_heads": 16,
            "encoder_ffn_dim": 4096,
            "downsample_hidden_size": 480,
        },
        {
            "hidden_size": 2048,
            "num_hidden_layers": 28,
            "num_attention_heads": 16,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "intermediate_size": 6144,
            "vocab_size": 151_936,
        },
    ),
}
_ALIGNER_BINS = 5000
_CHUNK_ELEMENTS = 1 << 22

_MARKS = [
    *(
        "<|endoftext|>",
        "<|im_start|>",
        "<|im_end|>",
        "<|object_ref_start|>",
        "<|object_ref_end|>",
        "<|box_start|>",
    ),
    *(
        "<|box_end|>",
        "<|quad_start|>",
        "<|quad_end|>",
        "<|vision_start|>",
        "<|vision_end|>",
        "<|vision_pad|>",
    ),
    *("<|image_pad|>", "<|video_pad|>", "<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>"),
    *(
        "<|fim_suffix|>",
        "<|fim_pad|>",
        "<|repo_name|>",
        "<|file_sep|>",
        "<tool_response>",
        "</tool_response>",
    ),
    *(
        "<think>",
        "</think>",
        "<|audio_start|>",
        "<|audio_end|>",
        "<tts_pad>",
        "<tts_text_bos>",
        "<tts_text_eod>",
    ),
    *("<tts_text_bos_single>", "<non_speech>", "<|audio_pad|>"),
]
# The official added tokens, in their order.
ADDED_TOKENS: tuple[str, ...] = (*_MARKS, *(f"<blank{number}>" for number in range(1, 28)), "<asr_text>")
TIMESTAMP = "<timestamp>"  # the last one of a forced aligner


def make_checkpoint(
    out: PathLike,
    preset: str = "tiny",
    *,
    audio: Overrides | None = None,
    text: Overrides | None = None,
    base_tokens: int | None = None,
    tied: bool = False,
    aligner: bool = False,
    dtype: str = "bf16",
    seed: int = 0,
) -> Path:
    """Write a random checkpoint to the directory ``out``; return its path.

    :param preset: ``tiny``, ``0.6b`` or ``1.7b``.
    :param audio: sizes that replace the preset's in ``audio_config`` (``d_model``, ``encoder_layers``, …).
    :param text: sizes that replace the preset's in ``text_config`` (``hidden_size``, ``head_dim``, ``vocab_size``, …).
    :param base_tokens: size of the vocabulary below the added tokens; by default what fits under ``vocab_size``.
    :param tied: leave out ``lm_head.weight``, so that the embedding takes its place; the released models have it.
    :param aligner: make a forced aligner: a classifier of 80 ms bins instead of the language-model head.
    :param dtype: ``bf16``, ``f16`` or ``f32``.
    :raises ConversionError: an impossible size, an unknown preset or ``dtype``, or the files cannot be written.

    Matrices are normal with deviation 1/sqrt(inputs), as in a trained network of these widths; norms are near 1.
    """
    directory = Path(out)
    config = _config(preset, audio or {}, text or {}, aligner)
    text_config = config["thinker_config"]["text_config"]
    added = (*ADDED_TOKENS, TIMESTAMP) if aligner else ADDED_TOKENS
    if base_tokens is None:
        base_tokens = (int(text_config["vocab_size"]) - len(added)) // 16 * 16
    if not 256 <= base_tokens <= text_config["vocab_size"] - len(added):
        raise ConversionError(
            f"{base_tokens} base tokens and {len(added)} added ones do not fit a vocabulary of "
            f"{text_config['vocab_size']}; at least 256 base tokens are needed"
        )
    _number_tokens(config, base_tokens, added)
    try:
        shapes = tensor_shapes(config)
    except (KeyError, TypeError, ValueError) as error:
        raise ConversionError(f"no model has these sizes: {error}") from None
    if tied and not aligner:
        del shapes["thinker.lm_head.weight"]
    text_config["tie_word_embeddings"] = tied and not aligner
    number = _number(dtype)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        _write_tokenizer(directory, base_tokens, added)
        _write_json(directory / "config.json", config)
        _write_json(directory / "preprocessor_config.json", _PREPROCESSOR)
        _write_weights(directory / "model.safetensors", shapes, *number, seed)
    except OSError as error:
        raise ConversionError(f"cannot write the checkpoint {directory}: {error.strerror}") from None
    return directory


_PREPROCESSOR: dict[str, Any] = {
    "chunk_length": 30,
    "dither": 0.0,
    "feature_extractor_type": "WhisperFeatureExtractor",
    "feature_size": 128,
    "hop_length": 160,
    "n_fft": 400,
    "n_samples": 480_000,
    "nb_max_frames": 3000,
    "padding_side": "right",
    "padding_value": 0.0,
    "processor_class": "Qwen3ASRProcessor",
    "return_attention_mask": True,
}


def _config(preset: str, audio: Overrides, text: Overrides, aligner: bool) -> dict[str, Any]:
    if preset not in PRESETS:
        raise ConversionError(f"unknown preset {preset!r}; choose one of {', '.join(PRESETS)}")
    audio_sizes, text_sizes = copy.deepcopy(PRESETS[preset])
    audio_config: dict[str, Any] = {
        **audio_sizes,
        "model_type": "qwen3_asr_audio_encoder",
        "num_mel_bins": 128,
        "n_window": 50,
        "n_window_infer": 800,
        "conv_chunksize": 500,
        "max_source_positions": 1500,
        "activation_function": "gelu",
        **audio,
    }
    audio_config["num_hidden_layers"] = audio_config["encoder_layers"]
    text_config: dict[str, Any] = {
        **text_sizes,
        "model_type": "qwen3_asr_text",
        "max_position_embeddings": 65_536,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "rope_theta": 1_000_000,
        "attention_bias": False,
        **text,
    }
    pairs = int(text_config["head_dim"]) // 2
    text_config["rope_scaling"] = {
        "interleaved": True,
        "mrope_interleaved": True,
        "mrope_section": [pairs - 2 * (pairs // 3), pairs // 3, pairs // 3],
        "rope_type": "default",
        "type": "default",
    }
    audio_config.setdefault("output_dim", text_config["hidden_size"])
    thinker: dict[str, Any] = {
        "model_type": "qwen3_asr_forced_aligner_thinker" if aligner else "qwen3_asr_thinker",
        "audio_config": audio_config,
        "text_config": text_config,
    }
    if aligner:
        thinker["classify_num"] = _ALIGNER_BINS
    return {
        "architectures": ["Qwen3ASRForConditionalGeneration"],
        "model_type": "qwen3_asr",
        "support_languages": ["Chinese", "English"],
        "thinker_config": thinker,
    }


def _number_tokens(config: dict[str, Any], base_tokens: int, added: Sequence[str]) -> None:
    ids = {token: base_tokens + index for index, token in enumerate(added)}
    if TIMESTAMP in ids:
        config["timestamp_token_id"], config["timestamp_segment_time"] = ids[TIMESTAMP], 80
    thinker = config["thinker_config"]
    thinker["audio_token_id"] = ids["<|audio_pad|>"]
    thinker["audio_start_token_id"] = ids["<|audio_start|>"]
    thinker["audio_end_token_id"] = ids["<|audio_end|>"]
    thinker["text_config"]["bos_token_id"] = ids["<|endoftext|>"]
    thinker["text_config"]["eos_token_id"] = ids["<|im_end|>"]


def _byte_alphabet() -> list[str]:
    """The printable character that stands for each byte in a GPT-2 vocabulary."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    shifted = itertools.count(0x100)
    return [chr(byte if byte in printable else next(shifted)) for byte in range(256)]


def _merges(alphabet: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Endless byte-pair merges: all pairs of letters first, then pairs with one more letter, and so on."""
    lower_case = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    letters = sorted(alphabet, key=lambda letter: letter not in lower_case)
    stems = list(letters)
    while True:
        longer = []
        for stem, letter in itertools.product(stems, letters):
            yield stem, letter
            longer.append(stem + letter)
        stems = longer


def _write_tokenizer(directory: Path, base_tokens: int, added_tokens: Sequence[str]) -> None:
    alphabet = _byte_alphabet()
    merges = list(itertools.islice(_merges(alphabet), base_tokens - len(alphabet)))
    tokens = [*sorted(alphabet), *("".join(pair) for pair in merges)]
    _write_json(directory / "vocab.json", {token: index for index, token in enumerate(tokens)})
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges), ""]
    (directory / "merges.txt").write_text("\n".join(lines), encoding="utf-8")
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    added = {
        str(base_tokens + index): {"content": token, **flags, "special": token.startswith("<|")}
        for index, token in enumerate(added_tokens)
    }
    tokenizer: dict[str, Any] = {
        "add_prefix_space": False,
        "added_tokens_decoder": added,
        "bos_token": None,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>",
        "errors": "replace",
        "model_max_length": 131_072,
        "pad_token": "<|endoftext|>",
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }
    _write_json(directory / "tokenizer_config.json", tokenizer)


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1), encoding="utf-8")


def _number(dtype: str) -> tuple[str, Any]:
    """A number's name in a safetensors file, and NumPy's type for it."""
    with checkpoint_packages():
        import ml_dtypes

        kinds = {
            "bf16": ("BF16", ml_dtypes.bfloat16),
            "f16": ("F16", np.float16),
            "f32": ("F32", np.float32),
        }
    if dtype not in kinds:
        raise ConversionError(f"unknown dtype {dtype!r}; choose one of {', '.join(kinds)}")
    return kinds[dtype]


def _write_weights(path: Path, shapes: Mapping[str, Shape], label: str, number_type: Any, seed: int) -> None:
    """Write a safetensors file piece by piece: no tensor is ever in memory as a whole."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.items():
        start, end = end, end + int(np.prod(shape, dtype=np.int64)) * np.dtype(number_type).itemsize
        header[name] = {"dtype": label, "shape": list(shape), "data_offsets": [start, end]}
    encoded = json.dumps(header, separators=(",", ":")).encode("utf-8")
    encoded += b" " * (-len(encoded) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(encoded)) + encoded)
        for index, (name, shape) in enumerate(shapes.items()):
            for values in _random_values(name, shape, np.random.default_rng([seed, index])):
                file.write(values.astype(number_type).tobytes())


def _random_values(name: str, shape: Shape, rng: np.random.Generator) -> Iterator[NDArray[np.float32]]:
    mean, deviation = 0.0, float(np.prod(shape[1:], dtype=np.float64)) ** -0.5
    if len(shape) == 1:
        is_norm = name.endswith(("norm.weight", "ln_post.weight"))
        mean, deviation = (1.0, 0.05) if is_norm else (0.0, 0.02)
    count = int(np.prod(shape, dtype=np.int64))
    for start in range(0, count, _CHUNK_ELEMENTS):
        values = rng.standard_normal(min(_CHUNK_ELEMENTS, count - start), dtype=np.float32)
        values *= np.float32(deviation)
        values += np.float32(mean)
        yield values


def _sizes(assignments: Sequence[str]) -> dict[str, dict[str, int]]:
    """``["text.head_dim=96"]`` -> ``{"text": {"head_dim": 96}, "audio": {}}``."""
    sizes: dict[str, dict[str, int]] = {"audio": {}, "text": {}}
    for assignment in assignments:
        owner, _, rest = assignment.partition(".")
        key, _, value = rest.partition("=")
        if owner not in sizes or not key or not value.isdigit():
            raise ConversionError(f"cannot read the size {assignment!r}; write it like text.head_dim=96")
        sizes[owner][key] = int(value)
    return sizes


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line of ``python -m qwen3asr_native.files.checkpoints``."""
    parser = argparse.ArgumentParser(prog="python -m qwen3asr_native.files.checkpoints", description=__doc__)
    parser.add_argument("out", type=Path, help="directory to write the checkpoint to")
    parser.add_argument("--preset", choices=sorted(PRESETS), default="tiny")
    parser.add_argument(
        "--set", action="append", default=[], metavar="PART.SIZE=N", help="e.g. text.head_dim=96"
    )
    parser.add_argument("--base-tokens", type=int, help="vocabulary below the added tokens")
    parser.add_argument(
        "--tied", action="store_true", help="leave out lm_head.weight: the embedding takes its place"
    )
    parser.add_argument("--aligner", action="store_true", help="make a forced aligner")
    parser.add_argument("--dtype", choices=("bf16", "f16", "f32"), default="bf16")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--ggmm", metavar="TYPE", action="append", default=[], help="also write a GGMM file of TYPE"
    )
    options = parser.parse_args(arguments)
    try:
        sizes = _sizes(options.set)
        directory = make_checkpoint(
            options.out,
            options.preset,
            audio=sizes["audio"],
            text=sizes["text"],
            base_tokens=options.base_tokens,
            tied=options.tied,
            aligner=options.aligner,
            dtype=options.dtype,
            seed=options.seed,
        )
        print(directory)
        for kind in options.ggmm:
            print(convert(directory, directory / f"{directory.resolve().name}-{kind}.bin", kind))
    except ConversionError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
