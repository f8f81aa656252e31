"""The official prompt around the audio, and what the model has to answer."""

from __future__ import annotations

import random
from typing import Callable

from .texts import CHINESE_CHARACTERS

_CONTEXTS = (
    *(
        "",
        "PostgreSQL",
        "交易",
        "停滯",
        "phone number",
        "電話號碼",
        "Preserve spelling: PostgreSQL",
        "你好，請講。",
    ),
    *(
        "Transcribe the audio.",
        "客戶資料",
        "订单号码",
        "The caller reads a number.",
        "台灣大學 2026",
        "Zoë & Björn",
    ),
)
Encode = Callable[[str], "list[int]"]


def random_context(rng: random.Random) -> str:
    """Text that may stand in the system turn; the model has to live with it."""
    kind = rng.random()
    if kind < 0.6:
        return rng.choice(_CONTEXTS)
    if kind < 0.8:
        return "".join(rng.choice(CHINESE_CHARACTERS) for _ in range(rng.randint(1, 12)))
    return "".join(chr(rng.randint(32, 126)) for _ in range(rng.randint(1, 30)))


def before_audio(context: str) -> str:
    return f"<|im_start|>system\n{context}<|im_end|>\n<|im_start|>user\n<|audio_start|>"


def after_audio(forced_language: str | None) -> str:
    after = "<|audio_end|><|im_end|>\n<|im_start|>assistant\n"
    return f"{after}language {forced_language}<asr_text>" if forced_language else after


def prompt(encode: Encode, context: str, audio_tokens: int, forced_language: str | None) -> list[int]:
    """Token ids up to the place where the answer begins."""
    audio = encode("<|audio_pad|>") * audio_tokens
    return encode(before_audio(context)) + audio + encode(after_audio(forced_language))


def answer(encode: Encode, language: str | None, text: str, forced_language: str | None) -> list[int]:
    """Token ids of the answer, ``<|im_end|>`` included."""
    head = "" if forced_language else f"language {language or 'None'}<asr_text>"
    return encode(head + text + "<|im_end|>")
