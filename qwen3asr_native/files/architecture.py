"""The tensors of a Qwen3-ASR checkpoint, from its configuration alone: names and shapes as Hugging Face writes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .native import ALIGNER_CLASS, is_native

Shape = tuple[int, ...]
CONV_KERNEL = 3
# What no checkpoint exceeds; a number beside the point must cost neither time nor memory.
_MOST_SIZE, _MOST_LAYERS = 1 << 24, 1024


def is_aligner(config: Mapping[str, Any]) -> bool:
    """Whether ``config`` (a whole ``config.json``) is that of a forced aligner."""
    if is_native(config):
        classes = config.get("architectures")
        return isinstance(classes, list) and ALIGNER_CLASS in classes
    thinker = config.get("thinker_config")
    return isinstance(thinker, Mapping) and "forced_aligner" in str(thinker.get("model_type", ""))


def _part(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = config.get(name)
    if not isinstance(part, Mapping):
        raise ValueError(f"{name} is missing or no object")
    return part


def size(part: Mapping[str, Any], name: str, most: int = _MOST_SIZE) -> int:
    """A size of a configuration. Raises ``ValueError``, which names it, when there is none from 1 to ``most``."""
    value = part.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        raise ValueError(f"{name} is {str(value)[:40]!r}, which is no whole number from 1 to {most:,}")
    return value


def head_dim(text: Mapping[str, Any]) -> int:
    """Size of an attention head of the decoder."""
    if text.get("head_dim") is not None:
        return size(text, "head_dim")
    return size(text, "hidden_size") // size(text, "num_attention_heads")


def tensor_shapes(config: Mapping[str, Any]) -> dict[str, Shape]:
    """Name -> shape of every tensor, in the order of a saved checkpoint (sorted by name).

    ``thinker.lm_head.weight`` is always listed; a checkpoint with tied embeddings may leave it out.
    Raises ``ValueError``, which names it, when ``config`` lacks a size or has an impossible one.
    """
    thinker = _part(config, "thinker_config")
    text = _part(thinker, "text_config")
    shapes = {
        **_encoder_shapes(_part(thinker, "audio_config"), "thinker.audio_tower."),
        **_decoder_shapes(text, "thinker.model."),
    }
    outputs = size(thinker, "classify_num") if is_aligner(config) else size(text, "vocab_size")
    shapes["thinker.lm_head.weight"] = (outputs, size(text, "hidden_size"))
    for name, shape in shapes.items():
        if min(shape) < 1:
            raise ValueError(f"{name} would have the shape {shape}")
    return dict(sorted(shapes.items()))


def _encoder_shapes(audio: Mapping[str, Any], prefix: str) -> dict[str, Shape]:
    width, channels = size(audio, "d_model"), size(audio, "downsample_hidden_size")
    inner, output = size(audio, "encoder_ffn_dim"), size(audio, "output_dim")
    frequencies = size(audio, "num_mel_bins")
    for _ in range(3):  # each convolution halves the number of bands, rounding up
        frequencies = (frequencies + 1) // 2
    shapes: dict[str, Shape] = {}
    for number, inputs in ((1, 1), (2, channels), (3, channels)):
        shapes[f"conv2d{number}.weight"] = (channels, inputs, CONV_KERNEL, CONV_KERNEL)
        shapes[f"conv2d{number}.bias"] = (channels,)
    shapes["conv_out.weight"] = (width, channels * frequencies)
    linears = {f"self_attn.{part}_proj": (width, width) for part in ("q", "k", "v", "out")}
    linears.update({"fc1": (inner, width), "fc2": (width, inner)})
    for layer in range(size(audio, "encoder_layers", _MOST_LAYERS)):
        for name, shape in linears.items():
            shapes[f"layers.{layer}.{name}.weight"] = shape
            shapes[f"layers.{layer}.{name}.bias"] = shape[:1]
        for name in ("self_attn_layer_norm", "final_layer_norm"):
            shapes[f"layers.{layer}.{name}.weight"] = shapes[f"layers.{layer}.{name}.bias"] = (width,)
    shapes["ln_post.weight"] = shapes["ln_post.bias"] = (width,)
    shapes.update({"proj1.weight": (width, width), "proj1.bias": (width,)})
    shapes.update({"proj2.weight": (output, width), "proj2.bias": (output,)})
    return {prefix + name: shape for name, shape in shapes.items()}


def _decoder_shapes(text: Mapping[str, Any], prefix: str) -> dict[str, Shape]:
    hidden, inner, head = size(text, "hidden_size"), size(text, "intermediate_size"), head_dim(text)
    queries = size(text, "num_attention_heads") * head
    keys = size(text, "num_key_value_heads") * head
    layer_shapes: dict[str, Shape] = {
        "input_layernorm": (hidden,),
        "post_attention_layernorm": (hidden,),
        "mlp.gate_proj": (inner, hidden),
        "mlp.up_proj": (inner, hidden),
        "mlp.down_proj": (hidden, inner),
        "self_attn.q_proj": (queries, hidden),
        "self_attn.k_proj": (keys, hidden),
        "self_attn.v_proj": (keys, hidden),
        "self_attn.o_proj": (hidden, queries),
        "self_attn.q_norm": (head,),
        "self_attn.k_norm": (head,),
    }
    shapes = {"embed_tokens.weight": (size(text, "vocab_size"), hidden), "norm.weight": (hidden,)}
    for layer in range(size(text, "num_hidden_layers", _MOST_LAYERS)):
        shapes.update({f"layers.{layer}.{name}.weight": shape for name, shape in layer_shapes.items()})
    return {prefix + name: shape for name, shape in shapes.items()}
