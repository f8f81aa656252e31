"""The tensors of a Qwen3-ASR checkpoint, from its configuration alone: names and shapes as Hugging Face writes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .native import ALIGNER_CLASS, is_native

Shape = tuple[int, ...]
CONV_KERNEL = 3


def is_aligner(config: Mapping[str, Any]) -> bool:
    """Whether ``config`` (a whole ``config.json``) is that of a forced aligner."""
    if is_native(config):
        return ALIGNER_CLASS in (config.get("architectures") or ())
    return "forced_aligner" in str(config["thinker_config"].get("model_type", ""))


def head_dim(text: Mapping[str, Any]) -> int:
    """Size of an attention head of the decoder."""
    return int(text.get("head_dim") or text["hidden_size"] // text["num_attention_heads"])


def tensor_shapes(config: Mapping[str, Any]) -> dict[str, Shape]:
    """Name -> shape of every tensor, in the order of a saved checkpoint (sorted by name).

    ``thinker.lm_head.weight`` is always listed; a checkpoint with tied embeddings may leave it out.
    Raises ``KeyError``, ``TypeError`` or ``ValueError`` when ``config`` lacks a size or has an impossible one.
    """
    thinker = config["thinker_config"]
    shapes = {
        **_encoder_shapes(thinker["audio_config"], "thinker.audio_tower."),
        **_decoder_shapes(thinker["text_config"], "thinker.model."),
    }
    text = thinker["text_config"]
    outputs = int(thinker["classify_num"]) if is_aligner(config) else int(text["vocab_size"])
    shapes["thinker.lm_head.weight"] = (outputs, int(text["hidden_size"]))
    for name, shape in shapes.items():
        if min(shape) < 1:
            raise ValueError(f"{name} would have the shape {shape}")
    return dict(sorted(shapes.items()))


def _encoder_shapes(audio: Mapping[str, Any], prefix: str) -> dict[str, Shape]:
    size, channels = int(audio["d_model"]), int(audio["downsample_hidden_size"])
    inner, output = int(audio["encoder_ffn_dim"]), int(audio["output_dim"])
    frequencies = int(audio["num_mel_bins"])
    for _ in range(3):  # each convolution halves the number of bands, rounding up
        frequencies = (frequencies + 1) // 2
    shapes: dict[str, Shape] = {}
    for number, inputs in ((1, 1), (2, channels), (3, channels)):
        shapes[f"conv2d{number}.weight"] = (channels, inputs, CONV_KERNEL, CONV_KERNEL)
        shapes[f"conv2d{number}.bias"] = (channels,)
    shapes["conv_out.weight"] = (size, channels * frequencies)
    linears = {f"self_attn.{part}_proj": (size, size) for part in ("q", "k", "v", "out")}
    linears.update({"fc1": (inner, size), "fc2": (size, inner)})
    for layer in range(int(audio["encoder_layers"])):
        for name, shape in linears.items():
            shapes[f"layers.{layer}.{name}.weight"] = shape
            shapes[f"layers.{layer}.{name}.bias"] = shape[:1]
        for name in ("self_attn_layer_norm", "final_layer_norm"):
            shapes[f"layers.{layer}.{name}.weight"] = shapes[f"layers.{layer}.{name}.bias"] = (size,)
    shapes["ln_post.weight"] = shapes["ln_post.bias"] = (size,)
    shapes.update({"proj1.weight": (size, size), "proj1.bias": (size,)})
    shapes.update({"proj2.weight": (output, size), "proj2.bias": (output,)})
    return {prefix + name: shape for name, shape in shapes.items()}


def _decoder_shapes(text: Mapping[str, Any], prefix: str) -> dict[str, Shape]:
    hidden, inner, head = int(text["hidden_size"]), int(text["intermediate_size"]), head_dim(text)
    queries = int(text["num_attention_heads"]) * head
    keys = int(text["num_key_value_heads"]) * head
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
    shapes = {"embed_tokens.weight": (int(text["vocab_size"]), hidden), "norm.weight": (hidden,)}
    for layer in range(int(text["num_hidden_layers"])):
        shapes.update({f"layers.{layer}.{name}.weight": shape for name, shape in layer_shapes.items()})
    return {prefix + name: shape for name, shape in shapes.items()}
