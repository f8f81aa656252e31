"""What the files beside a checkpoint's weights say of its tokens and its audio, checked: every wrong field is named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

# What the engine's prompts are made of; the last one is a recognizer's or an aligner's.
_SPECIAL = ("<|endoftext|>", "<|im_end|>", "<|audio_start|>", "<|audio_pad|>", "<|audio_end|>")
_RECOGNIZER = (*_SPECIAL, "<|im_start|>", "<asr_text>")
_ALIGNER = (*_SPECIAL, "<timestamp>")
# What the engine computes, whatever a front end's description says.
_FRONT_END = {"sampling_rate": 16_000, "n_fft": 400, "hop_length": 160, "dither": 0}


def shown(value: Any) -> str:
    """A value in a sentence."""
    return f"{str(value)[:40]!r}"


def part(whole: Any, name: str, kind: type = Mapping) -> Any:
    """A member of an object. Raises ``ValueError``, which names it, when it is missing or something else."""
    value = whole.get(name) if isinstance(whole, Mapping) else None
    if not isinstance(value, kind):
        raise ValueError(f"{name} is missing or no {'object' if kind is Mapping else 'list'}")
    return value


def number(whole: Mapping[str, Any], name: str, least: float, most: float) -> None:
    """Raises ``ValueError``, which names it, for a member that is there and no number from ``least`` to ``most``."""
    value = whole.get(name, least)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most:
        raise ValueError(f"{name} is {shown(value)}, which is no number from {least:g} to {most:g}")


def ids_of_added_tokens(added: Any) -> dict[str, int]:
    """Ids by text of an ``added_tokens_decoder``. Raises ``ValueError``, which names what is wrong."""
    ids = {}
    for number, token in added.items():
        if not number.isdecimal() or not number.isascii() or int(number) >= 1 << 31:
            raise ValueError(f"added_tokens_decoder has the id {shown(number)}, which is no whole number")
        content = token.get("content") if isinstance(token, Mapping) else None
        if not isinstance(content, str):
            raise ValueError(f"token {number} of added_tokens_decoder has no text as its content")
        ids[content] = int(number)
    return ids


def check_special(ids: Mapping[str, int], aligner: bool) -> None:
    """Raises ``ValueError`` when a token is missing that the engine needs."""
    for token in _ALIGNER if aligner else _RECOGNIZER:
        if token not in ids:
            raise ValueError(f"no added token has the content {token}")


def check_places(ids: Mapping[str, int], vocab_size: int) -> None:
    """Raises ``ValueError`` for a token without a place in the vocabulary."""
    for token, number in ids.items():
        if number >= vocab_size:
            raise ValueError(f"the added token {token!r} has the id {number}, but vocab_size is {vocab_size}")


def in_order(vocabulary: Any) -> list[str]:
    """The base tokens by their numbers. Raises ``ValueError``, which names the first token that has none of its own."""
    if not isinstance(vocabulary, Mapping) or not vocabulary:
        raise ValueError("it has no object with the numbers of its tokens")
    tokens: list[str | None] = [None] * len(vocabulary)
    for token, number in vocabulary.items():
        known = isinstance(number, int) and not isinstance(number, bool) and 0 <= number < len(tokens)
        if not known or tokens[number] is not None:
            raise ValueError(
                f"the token {token!r} has the number {shown(number)}; tokens are numbered from 0 without gaps"
            )
        tokens[number] = token
    return [token for token in tokens if token is not None]


def merges(pairs: Sequence[Any]) -> list[str]:
    """Merges of a ``tokenizer.json`` as ``left right``. Raises ``ValueError`` for the first that is none."""
    texts = []
    for number, pair in enumerate(pairs):
        text = pair if isinstance(pair, str) else None
        if isinstance(pair, list) and all(isinstance(side, str) for side in pair):
            text = " ".join(pair)
        if text is None or text.count(" ") != 1:
            raise ValueError(f"merge {number} of merges is {shown(pair)}, which is no pair of tokens")
        texts.append(text)
    return texts


def check_front_end(front_end: Any, mel_bins: int) -> None:
    """Raises ``ValueError`` for a setting that the engine's spectrogram has not. What is missing or null is as it is there."""
    if not isinstance(front_end, Mapping):
        raise ValueError("it is no object")
    for name, wanted in {**_FRONT_END, "feature_size": mel_bins}.items():
        value = front_end.get(name)
        if value is not None and (isinstance(value, bool) or value != wanted):
            raise ValueError(f"{name} is {shown(value)}, but this engine computes with {wanted}")
