"""Reference outputs of a checkpoint, computed with the official PyTorch code in float32 on the CPU.

``python -m qwen3asr_native.reference CHECKPOINT AUDIO OUT.npz`` writes what the engine must reproduce. Needs the extra
``[reference]``. The arrays of a reference:

========================  ==================================================================================
``pcm_len``               number of samples at 16 kHz
``mel``                   [128, frames] log-mel features
``prompt_ids``            the whole prompt, one ``<|audio_pad|>`` for each audio token
``window_encoder``        [audio tokens, hidden]: attention inside windows of 8 seconds, the default
``window_logits``         [vocabulary]: after the last position of the prompt
``window_tokens``         greedy token ids; an end token does not stop them
``window_logprobs``       natural logarithm of each token's probability
``full_…``                the same four with attention over the whole clip
========================  ==================================================================================
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import sys
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import Qwen3AsrError
from ..files.architecture import is_aligner
from ..files.convert import PathLike

SAMPLE_RATE = 16_000
ATTENTION_MODES = ("window", "full")
_INSTALL = (
    "install it with: pip install 'qwen3asr-native[reference]' and pip install --no-deps qwen-asr==0.0.6"
)


class Official(NamedTuple):
    """The official model without its language-model wrapper, with its tokenizer and feature extractor."""

    thinker: Any
    tokenizer: Any
    features: Any
    audio_token: int


def _import_official() -> Any:
    """The official model classes alone: the package's own ``__init__`` imports web and audio dependencies."""
    try:
        root = Path(str(importlib.metadata.distribution("qwen-asr").locate_file("qwen_asr")))
    except importlib.metadata.PackageNotFoundError:
        raise Qwen3AsrError(f"the official qwen-asr package is missing; {_INSTALL}") from None
    for name, path in (("qwen_asr", root), ("qwen_asr.core", root / "core")):
        if name not in sys.modules:
            module = types.ModuleType(name)
            module.__path__ = [str(path)]
            sys.modules[name] = module
    try:
        from qwen_asr.core.transformers_backend import configuration_qwen3_asr, modeling_qwen3_asr
    except ImportError as error:
        raise Qwen3AsrError(f"the reference needs PyTorch and transformers ({error}); {_INSTALL}") from None
    return configuration_qwen3_asr.Qwen3ASRConfig, modeling_qwen3_asr.Qwen3ASRForConditionalGeneration


def load_official(checkpoint: PathLike) -> Official:
    """Load the checkpoint directory with the official code, in float32.

    :raises Qwen3AsrError: the extra is not installed, or the directory is not a speech recognition checkpoint.
    """
    directory = Path(checkpoint)
    config_class, model_class = _import_official()
    import torch
    from transformers import AutoConfig, Qwen2TokenizerFast, WhisperFeatureExtractor

    AutoConfig.register("qwen3_asr", config_class, exist_ok=True)
    try:
        config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
        aligner = is_aligner(config)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Qwen3AsrError(f"{directory} is no Qwen3-ASR checkpoint directory: {error!r}") from None
    if aligner:
        raise Qwen3AsrError(
            f"{directory} is a forced aligner; references are made for speech recognition models"
        )
    model = model_class.from_pretrained(str(directory), dtype=torch.float32, attn_implementation="sdpa")
    thinker = model.eval().thinker
    if "thinker.lm_head.weight" not in _tensor_names(directory):
        thinker.lm_head.weight = thinker.model.embed_tokens.weight
    tokenizer = Qwen2TokenizerFast.from_pretrained(str(directory))
    return Official(
        thinker,
        tokenizer,
        WhisperFeatureExtractor.from_pretrained(str(directory)),
        int(tokenizer.convert_tokens_to_ids("<|audio_pad|>")),
    )


def _tensor_names(directory: Path) -> Sequence[str]:
    from safetensors import safe_open

    names: list[str] = []
    for shard in sorted(directory.glob("*.safetensors")):
        with safe_open(str(shard), framework="numpy") as file:
            names.extend(file.keys())
    return names


def prompt_text(context: str, language: str | None) -> str:
    """The official chat prompt with one ``<|audio_pad|>`` in the place of the audio."""
    prompt = f"<|im_start|>system\n{context}<|im_end|>\n<|im_start|>user\n"
    prompt += "<|audio_start|><|audio_pad|><|audio_end|><|im_end|>\n<|im_start|>assistant\n"
    return prompt + (f"language {language}<asr_text>" if language else "")


def reference(
    official: Official,
    samples: NDArray[np.float32],
    language: str | None = None,
    context: str = "",
    tokens: int = 32,
) -> dict[str, NDArray[Any]]:
    """Reference arrays (see the module's table) of ``samples`` [n], mono at 16 kHz.

    ``language`` forces the output language; ``tokens`` is the number of greedy tokens.
    """
    extracted = official.features(
        samples, sampling_rate=SAMPLE_RATE, padding=True, truncation=False, return_attention_mask=True
    )
    frames = int(np.sum(extracted["attention_mask"][0]))
    mel = np.asarray(extracted["input_features"][0], np.float32)[:, :frames]
    arrays: dict[str, NDArray[Any]] = {"pcm_len": np.array(samples.size), "mel": mel}
    for mode in ATTENTION_MODES:
        encoder = _encode(official.thinker.audio_tower, mel, mode)
        text = prompt_text(context, language).replace("<|audio_pad|>", "<|audio_pad|>" * encoder.shape[0])
        ids = official.tokenizer.encode(text, add_special_tokens=False)
        arrays["prompt_ids"] = np.array(ids, np.int64)
        logits, greedy, logprobs = _decode(official, ids, encoder, tokens)
        arrays[f"{mode}_encoder"] = encoder.numpy()
        arrays[f"{mode}_logits"] = logits
        arrays[f"{mode}_tokens"] = greedy
        arrays[f"{mode}_logprobs"] = logprobs
    return arrays


def _encode(tower: Any, mel: NDArray[np.float32], mode: str) -> Any:
    """Encoder outputs [audio tokens, hidden]. The official CPU path attends over the whole clip; its own mask, which it
    never applies there, confines attention to windows as its GPU paths do."""
    import torch

    def confine(_: Any, args: Any, kwargs: Any) -> Any:
        hidden, boundaries = args
        return args, {**kwargs, "attention_mask": tower._prepare_attention_mask(hidden, boundaries)}

    hooks = []
    if mode == "window":
        hooks = [layer.register_forward_pre_hook(confine, with_kwargs=True) for layer in tower.layers]
    try:
        with torch.no_grad():
            lengths = torch.tensor([mel.shape[1]])
            return tower(torch.from_numpy(mel), feature_lens=lengths).last_hidden_state
    finally:
        for hook in hooks:
            hook.remove()


def _decode(official: Official, ids: Sequence[int], encoder: Any, tokens: int) -> Any:
    """Logits after the prompt, and greedy tokens with their log-probabilities."""
    import torch

    thinker = official.thinker
    greedy, logprobs = [], []
    with torch.no_grad():
        prompt = torch.tensor([ids])
        embeddings = thinker.get_input_embeddings()(prompt)
        places = (prompt == official.audio_token)[..., None].expand_as(embeddings)
        output = thinker(inputs_embeds=embeddings.masked_scatter(places, encoder), use_cache=True)
        first = output.logits[0, -1].numpy().copy()
        for _ in range(tokens):
            scores = torch.log_softmax(output.logits[0, -1].double(), -1)
            token = int(scores.argmax())
            greedy.append(token)
            logprobs.append(float(scores[token]))
            output = thinker(
                input_ids=torch.tensor([[token]]), past_key_values=output.past_key_values, use_cache=True
            )
    return first, np.array(greedy, np.int64), np.array(logprobs, np.float32)


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line of ``python -m qwen3asr_native.reference``."""
    parser = argparse.ArgumentParser(
        prog="python -m qwen3asr_native.reference",
        description="Write the official code's outputs for one recording.",
    )
    parser.add_argument("checkpoint", type=Path, help="Hugging Face checkpoint directory")
    parser.add_argument("audio", type=Path, help="mono audio file at 16 kHz")
    parser.add_argument("out", type=Path, help=".npz file to write")
    parser.add_argument("--language", help="force the output language, e.g. Chinese")
    parser.add_argument("--context", default="", help="text of the system turn")
    parser.add_argument("--tokens", type=int, default=32, help="number of greedy tokens")
    options = parser.parse_args(arguments)
    import soundfile

    try:
        samples, rate = soundfile.read(str(options.audio), dtype="float32")
        if samples.ndim != 1 or rate != SAMPLE_RATE:
            raise Qwen3AsrError(f"{options.audio} is not mono at 16 kHz; convert it first")
        official = load_official(options.checkpoint)
        arrays = reference(official, samples, options.language, options.context, options.tokens)
        np.savez_compressed(options.out, **arrays)  # type: ignore[arg-type]  # keywords are arrays
    except (Qwen3AsrError, soundfile.SoundFileError, OSError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
