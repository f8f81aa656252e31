"""Text after the decoder: output parsing, script conversion and inverse text normalization."""

from __future__ import annotations

CHINESE_LANGUAGES = frozenset({"chinese", "cantonese"})


def is_chinese(language: str | None) -> bool:
    """Whether script conversion and inverse text normalization apply to ``language``.

    Args:
        language: a language name as the model gives it ("Chinese", "Cantonese", "English", ...);
            for speech that mixes languages the model may give several, separated by commas.
    """
    if not language:
        return False
    return any(name.strip().lower() in CHINESE_LANGUAGES for name in language.split(","))
