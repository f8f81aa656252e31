"""Checkpoints in the layout of transformers 5, made from those in the original one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_PREFIXES = (
    ("thinker.audio_tower.proj", "model.multi_modal_projector.linear_"),
    ("thinker.audio_tower.", "model.audio_tower."),
    ("thinker.model.", "model.language_model."),
)


def _native_name(name: str, aligner: bool) -> str:
    if name == "thinker.lm_head.weight":
        return "score.weight" if aligner else "lm_head.weight"
    for original, native in _PREFIXES:
        if name.startswith(original):
            return native + name[len(original) :]
    raise KeyError(name)


def to_native(source: Path, out: Path, shards: int = 1) -> Path:
    """Writes the checkpoint ``source`` to ``out`` as transformers 5 would, its weights in so many files."""
    from safetensors import safe_open
    from safetensors.numpy import save_file

    def read(name: str) -> Any:
        return json.loads((source / name).read_text(encoding="utf-8"))

    def write(name: str, content: Any) -> None:
        (out / name).write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")

    out.mkdir()
    config, tokenizer = read("config.json"), read("tokenizer_config.json")
    thinker = config["thinker_config"]
    aligner = "classify_num" in thinker
    text = {k: v for k, v in thinker["text_config"].items() if k not in ("rope_theta", "rope_scaling")}
    text.update(
        bos_token_id=None, eos_token_id=None, rope_parameters={"rope_theta": 1e6, "rope_type": "default"}
    )
    audio = {k: v for k, v in thinker["audio_config"].items() if k != "num_hidden_layers"}
    native: dict[str, Any] = {
        "architectures": [
            "Qwen3ASRForTokenClassification" if aligner else "Qwen3ASRForConditionalGeneration"
        ],
        "model_type": "qwen3_asr",
        "audio_config": audio,
        "text_config": text,
    }
    if aligner:
        native["id2label"] = {str(i): f"LABEL_{i}" for i in range(thinker["classify_num"])}
    write("config.json", native)
    write(
        "processor_config.json",
        {"feature_extractor": read("preprocessor_config.json"), "timestamp_segment_time": 80},
    )
    added = [{"id": int(number), **token} for number, token in tokenizer["added_tokens_decoder"].items()]
    merges = (source / "merges.txt").read_text(encoding="utf-8").splitlines()[1:]
    model = {
        "type": "BPE",
        "vocab": read("vocab.json"),
        "merges": [merge.split(" ") for merge in merges if merge],
    }
    write("tokenizer.json", {"added_tokens": added, "model": model})
    write("tokenizer_config.json", {k: v for k, v in tokenizer.items() if k != "added_tokens_decoder"})
    with safe_open(str(source / "model.safetensors"), framework="numpy") as file:
        tensors = {_native_name(name, aligner): file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    names = sorted(tensors)
    if shards == 1:
        save_file(tensors, str(out / "model.safetensors"))
        return out
    weight_map = {}
    for shard in range(shards):
        file_name = f"model-{shard + 1:05}-of-{shards:05}.safetensors"
        mine = names[shard::shards]
        save_file({name: tensors[name] for name in mine}, str(out / file_name))
        weight_map.update(dict.fromkeys(mine, file_name))
    write("model.safetensors.index.json", {"weight_map": weight_map})
    return out
