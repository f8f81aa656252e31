"""The mini model's own byte-level BPE vocabulary, with the special tokens under their official names.

Every character and word that the model can write is a single token; everything else falls back to bytes, so any text
can stand in the context.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from .texts import CHINESE_CHARACTERS, ENGLISH_WORDS

# How the official tokenizer cuts a text before it merges bytes.
_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
PROMPT_WORDS = ("system", "user", "assistant", "language", " Chinese", " English", " None")
# (name, whether decoders treat it as a special token), in the order of the official vocabulary.
ADDED_TOKENS = (
    *(
        (f"<|{name}|>", True)
        for name in ("endoftext", "im_start", "im_end", "object_ref_start", "object_ref_end")
    ),
    *((f"<|{name}|>", True) for name in ("box_start", "box_end", "quad_start", "quad_end", "vision_start")),
    *((f"<|{name}|>", True) for name in ("vision_end", "vision_pad", "image_pad", "video_pad")),
    *((f"<{name}>", False) for name in ("tool_call", "/tool_call")),
    *(
        (f"<|{name}|>", True)
        for name in ("fim_prefix", "fim_middle", "fim_suffix", "fim_pad", "repo_name", "file_sep")
    ),
    *((f"<{name}>", False) for name in ("tool_response", "/tool_response", "think", "/think")),
    *((f"<|{name}|>", True) for name in ("audio_start", "audio_end")),
    *((f"<{name}>", False) for name in ("tts_pad", "tts_text_bos", "tts_text_eod", "tts_text_bos_single")),
    ("<non_speech>", False),
    ("<|audio_pad|>", True),
    *((f"<blank{i}>", False) for i in range(1, 28)),
    ("<asr_text>", False),
)


def byte_alphabet() -> list[str]:
    """The printable character that stands for each byte in a GPT-2 vocabulary."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    shifted = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(shifted)) for byte in range(256)]


def learn_merges(words: list[str]) -> list[tuple[str, str]]:
    """Byte-pair merges that make every word of ``words`` one token, most frequent pair first."""
    alphabet = byte_alphabet()
    pieces = [[alphabet[byte] for byte in word.encode()] for word in words]
    merges: list[tuple[str, str]] = []
    while True:
        counts = Counter(pair for word in pieces for pair in zip(word, word[1:]))
        if not counts:
            return merges
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        merges.append(best)
        pieces = [_merge(word, best) for word in pieces]


def _merge(word: list[str], pair: tuple[str, str]) -> list[str]:
    merged: list[str] = []
    position = 0
    while position < len(word):
        if tuple(word[position : position + 2]) == pair:
            merged.append("".join(pair))
            position += 2
        else:
            merged.append(word[position])
            position += 1
    return merged


def write_tokenizer(directory: Path, more: Sequence[str] = ()) -> int:
    """Write ``vocab.json``, ``merges.txt`` and ``tokenizer_config.json``; return the number of tokens.

    ``more`` names special tokens to add behind those of :data:`ADDED_TOKENS`.
    """
    added_tokens = (*ADDED_TOKENS, *((name, True) for name in more))
    words = [
        *CHINESE_CHARACTERS,
        *PROMPT_WORDS,
        *ENGLISH_WORDS,
        *(" " + word for word in ENGLISH_WORDS),
    ]
    merges = learn_merges(words)
    tokens = [*sorted(byte_alphabet()), *dict.fromkeys("".join(pair) for pair in merges)]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    added = {
        str(len(tokens) + index): {
            "content": name,
            "lstrip": False,
            "normalized": False,
            "rstrip": False,
            "single_word": False,
            "special": special,
        }
        for index, (name, special) in enumerate(added_tokens)
    }
    config = {
        "add_prefix_space": False,
        "added_tokens_decoder": added,
        "audio_bos_token": "<|audio_start|>",
        "audio_eos_token": "<|audio_end|>",
        "audio_token": "<|audio_pad|>",
        "bos_token": None,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>",
        "errors": "replace",
        "extra_special_tokens": {
            "audio_bos_token": "<|audio_start|>",
            "audio_eos_token": "<|audio_end|>",
            "audio_token": "<|audio_pad|>",
        },
        "model_max_length": 131072,
        "pad_token": "<|endoftext|>",
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (directory / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    text = json.dumps(config, ensure_ascii=False, indent=1)
    (directory / "tokenizer_config.json").write_text(text, encoding="utf-8")
    return len(tokens) + len(added_tokens)


class Tokenizer:
    """Encodes texts as the official tokenizer does with the files that :func:`write_tokenizer` has written."""

    def __init__(self, directory: Path) -> None:
        from tokenizers import Regex, models, normalizers, pre_tokenizers
        from tokenizers import Tokenizer as Pipeline

        config = json.loads((directory / "tokenizer_config.json").read_text(encoding="utf-8"))
        self.names: dict[str, int] = json.loads((directory / "vocab.json").read_text(encoding="utf-8"))
        merges = (directory / "merges.txt").read_text(encoding="utf-8").splitlines()[1:]
        pairs = [tuple(line.split(" ")) for line in merges]
        self._pipeline = Pipeline(models.BPE(dict(self.names), pairs))
        self._pipeline.normalizer = normalizers.NFC()
        self._pipeline.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(_WORDS), "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
        self._added = {
            entry["content"]: int(number) for number, entry in config["added_tokens_decoder"].items()
        }
        self.names.update(self._added)
        self._special = re.compile("|".join(map(re.escape, self._added)))

    def encode(self, text: str) -> list[int]:
        ids: list[int] = []
        end = 0
        for match in self._special.finditer(text):
            ids += self._pipeline.encode(text[end : match.start()]).ids
            ids.append(self._added[match.group()])
            end = match.end()
        return ids + self._pipeline.encode(text[end:]).ids
