"""Checkpoints in the layout that transformers 5 writes, read as if they were in the original one.

The numbers are the same; names of tensors, the configuration and the tokenizer's files differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..languages import NAMES
from . import tokens

ALIGNER_CLASS = "Qwen3ASRForTokenClassification"
_PREFIXES = (
    ("model.audio_tower.", "thinker.audio_tower."),
    ("model.multi_modal_projector.linear_", "thinker.audio_tower.proj"),
    ("model.language_model.", "thinker.model."),
    ("lm_head.", "thinker.lm_head."),
    ("score.", "thinker.lm_head."),
)
# In the order of the originals.
_LANGUAGES = (
    "zh en yue ar de fr es pt id it ko ru th vi ja tr hi ms nl sv da fi pl cs fil fa ro el hu mk".split()
)
_ALIGNER_LANGUAGES = "zh en yue fr de it ja ko pt ru es".split()
# What transformers takes where a key is missing: the 1.7B model.
_AUDIO_DEFAULTS: dict[str, Any] = {
    "d_model": 1024,
    "encoder_layers": 24,
    "encoder_attention_heads": 16,
    "encoder_ffn_dim": 4096,
    "downsample_hidden_size": 480,
    "output_dim": 2048,
    "num_mel_bins": 128,
    "n_window": 50,
    "n_window_infer": 800,
}
_AUDIO_ALIASES = {
    "hidden_size": "d_model",
    "num_hidden_layers": "encoder_layers",
    "num_attention_heads": "encoder_attention_heads",
    "intermediate_size": "encoder_ffn_dim",
}
_TEXT_DEFAULTS: dict[str, Any] = {
    "hidden_size": 2048,
    "intermediate_size": 6144,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 151_936,
    "max_position_embeddings": 65_536,
    "rms_norm_eps": 1e-6,
}


def is_native(config: Mapping[str, Any]) -> bool:
    """Whether a ``config.json`` is in this layout; both say ``qwen3_asr`` for the type."""
    return "thinker_config" not in config and ("audio_config" in config or "text_config" in config)


def tensor_name(name: str) -> str:
    """The original name of a tensor."""
    for prefix, original in _PREFIXES:
        if name.startswith(prefix):
            return original + name[len(prefix) :]
    return name


def original_config(
    config: Mapping[str, Any], processor: Mapping[str, Any], added: Mapping[str, int], classes: int | None
) -> dict[str, Any]:
    """The ``config.json`` that the original layout would have.

    Args:
        config: The native one.
        processor: ``processor_config.json``.
        added: Ids of the added tokens, by text.
        classes: Rows of an aligner's ``score.weight``; None for a recognizer.

    Raises:
        ValueError: Something in it has a form that no checkpoint has; it is named.
    """
    given_audio = _given(config, "audio_config")
    for alias, name in _AUDIO_ALIASES.items():
        if name not in given_audio and alias in given_audio:
            given_audio[name] = given_audio[alias]
    given_text = _given(config, "text_config")
    rope = _given(given_text, "rope_parameters")
    given_text.pop("rope_parameters", None)
    if rope.get("rope_type", "default") != "default":
        raise ValueError(
            f"rope_type is {tokens.shown(rope['rope_type'])}, which this engine does not compute"
        )
    text = {**_TEXT_DEFAULTS, **given_text}
    text.setdefault("rope_theta", rope.get("rope_theta", 1_000_000))
    text["bos_token_id"], text["eos_token_id"] = added["<|endoftext|>"], added["<|im_end|>"]
    audio = {**_AUDIO_DEFAULTS, **given_audio}
    audio["num_hidden_layers"] = audio["encoder_layers"]
    thinker: dict[str, Any] = {
        "model_type": "qwen3_asr_thinker" if classes is None else "qwen3_forced_aligner",
        "audio_config": audio,
        "text_config": text,
        "audio_token_id": added["<|audio_pad|>"],
        "audio_start_token_id": added["<|audio_start|>"],
        "audio_end_token_id": added["<|audio_end|>"],
    }
    original: dict[str, Any] = {
        "architectures": ["Qwen3ASRForConditionalGeneration"],
        "model_type": "qwen3_asr",
        "support_languages": [
            NAMES[code] for code in (_LANGUAGES if classes is None else _ALIGNER_LANGUAGES)
        ],
        "thinker_config": thinker,
    }
    if classes is not None:
        thinker["classify_num"] = classes
        step = config.get("timestamp_segment_time", processor.get("timestamp_segment_time", 80))
        original["timestamp_token_id"], original["timestamp_segment_time"] = added["<timestamp>"], step
    return original


def added_tokens(tokenizer: Any) -> dict[str, Any]:
    """``added_tokens_decoder`` of a ``tokenizer.json``. Raises ``ValueError``, which names what is wrong."""
    decoder = {}
    for place, token in enumerate(tokens.part(tokenizer, "added_tokens", list)):
        number = token.get("id") if isinstance(token, Mapping) else None
        if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < 1 << 31:
            raise ValueError(f"token {place} of added_tokens has no whole number as its id")
        if not isinstance(token.get("content"), str):
            raise ValueError(f"token {place} of added_tokens has no text as its content")
        decoder[str(number)] = {name: value for name, value in token.items() if name != "id"}
    return decoder


def vocabulary(tokenizer: Any) -> tuple[dict[str, int], list[str]]:
    """Ids of the base tokens, and the merges as ``left right``, of a ``tokenizer.json``.

    Raises ``ValueError``, which names what is wrong.
    """
    model = tokens.part(tokenizer, "model")
    return dict(tokens.part(model, "vocab")), tokens.merges(tokens.part(model, "merges", list))


def _given(whole: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A copy of a part that may be missing or null. Raises ``ValueError``, which names it, when it is no object."""
    return {} if whole.get(name) is None else dict(tokens.part(whole, name))
