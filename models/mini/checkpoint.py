"""The mini model as a Hugging Face checkpoint that the official code loads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file, save_file

from .network import MiniASR
from .tokenizer import Tokenizer, write_tokenizer

if TYPE_CHECKING:
    from transformers import Qwen2TokenizerFast

SIZES = {
    "audio": {
        "d_model": 192,
        "encoder_layers": 4,
        "encoder_attention_heads": 6,
        "encoder_ffn_dim": 768,
        "output_dim": 192,
        "downsample_hidden_size": 32,
    },
    "text": {
        "hidden_size": 192,
        "num_hidden_layers": 3,
        "num_attention_heads": 6,
        "num_key_value_heads": 3,
        "head_dim": 32,
        "intermediate_size": 512,
    },
}


# The aligner's classes of time: each 40 ms, half a minute in all.
TIMESTAMP, SEGMENT_MILLISECONDS, TIME_CLASSES = "<timestamp>", 40, 750
ALIGNER_LANGUAGES = ["Chinese", "English", "French", "German", "Italian", "Portuguese", "Russian", "Spanish"]


def create(directory: Path, aligner: bool = False) -> dict:
    """Write the tokenizer, preprocessor and configuration files; return the configuration."""
    tokens = write_tokenizer(directory, (TIMESTAMP,) if aligner else ())
    token = Tokenizer(directory).names.__getitem__
    audio = {
        **SIZES["audio"],
        "model_type": "qwen3_asr_audio_encoder",
        "num_hidden_layers": SIZES["audio"]["encoder_layers"],
        "num_mel_bins": 128,
        "n_window": 50,
        "n_window_infer": 800,
        "conv_chunksize": 500,
        "max_source_positions": 1500,
        "activation_function": "gelu",
        "dropout": 0,
        "attention_dropout": 0,
        "activation_dropout": 0,
        "scale_embedding": False,
        "initializer_range": 0.02,
    }
    text = {
        **SIZES["text"],
        "model_type": "qwen3_asr_text",
        "vocab_size": (tokens + 31) // 32 * 32,
        "max_position_embeddings": 4096,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "rope_theta": 1_000_000,
        "rope_scaling": {
            "interleaved": True,
            "mrope_interleaved": True,
            "mrope_section": [6, 5, 5],
            "rope_type": "default",
            "type": "default",
        },
        "attention_bias": False,
        "tie_word_embeddings": True,
        "bos_token_id": token("<|endoftext|>"),
        "eos_token_id": token("<|im_end|>"),
        "initializer_range": 0.02,
        "use_cache": True,
    }
    config = {
        "architectures": ["Qwen3ASRForConditionalGeneration"],
        "model_type": "qwen3_asr",
        "support_languages": ["Chinese", "English"],
        "thinker_config": {
            "model_type": "qwen3_asr_thinker",
            "architectures": ["Qwen3ASRThinkerForConditionalGeneration"],
            "audio_config": audio,
            "text_config": text,
            "audio_token_id": token("<|audio_pad|>"),
            "audio_start_token_id": token("<|audio_start|>"),
            "audio_end_token_id": token("<|audio_end|>"),
            "user_token_id": token("user"),
            "initializer_range": 0.02,
        },
    }
    if aligner:
        thinker = {"model_type": "qwen3_forced_aligner", "classify_num": TIME_CLASSES}
        config["thinker_config"].update(thinker, tie_word_embeddings=False)
        config["thinker_config"]["text_config"]["tie_word_embeddings"] = False
        config.update(
            timestamp_token_id=token(TIMESTAMP),
            timestamp_segment_time=SEGMENT_MILLISECONDS,
            support_languages=ALIGNER_LANGUAGES,
            tie_word_embeddings=False,
        )
    preprocessor = {
        "chunk_length": 30,
        "dither": 0.0,
        "feature_extractor_type": "WhisperFeatureExtractor",
        "feature_size": 128,
        "hop_length": 160,
        "n_fft": 400,
        "n_samples": 480000,
        "nb_max_frames": 3000,
        "padding_side": "right",
        "padding_value": 0.0,
        "processor_class": "Qwen3ASRProcessor",
        "return_attention_mask": True,
    }
    for name, value in (("config.json", config), ("preprocessor_config.json", preprocessor)):
        (directory / name).write_text(json.dumps(value, indent=1), encoding="utf-8")
    return config


def load_tokenizer(directory: Path) -> Qwen2TokenizerFast:
    from transformers import Qwen2TokenizerFast

    return Qwen2TokenizerFast.from_pretrained(str(directory))


def save_weights(directory: Path, state: dict[str, torch.Tensor]) -> None:
    tensors = {f"thinker.{name}": value.detach().float().contiguous() for name, value in state.items()}
    save_file(tensors, str(directory / "model.safetensors"), metadata={"format": "pt"})


def load_ggmm(path: Path, network: MiniASR) -> None:
    """Give ``network`` the weights of a GGMM file of the same sizes, as exact as the file's tensor types are."""
    from qwen3asr_native.files.convert import tensor_name
    from qwen3asr_native.files.ggmm import GgmmFile

    with GgmmFile(path) as file:
        state = {
            name: torch.from_numpy(file.values(tensor_name(name)).copy()) for name in network.state_dict()
        }
    network.load_state_dict(state)


def load(directory: Path) -> MiniASR:
    """The network with the weights of ``directory``."""
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    network = MiniASR(config["thinker_config"])
    state = load_file(str(directory / "model.safetensors"))
    network.load_state_dict({name.removeprefix("thinker."): value for name, value in state.items()})
    return network.eval()
