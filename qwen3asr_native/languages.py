"""Names and codes of the languages that Qwen3-ASR knows."""

from __future__ import annotations

from collections.abc import Sequence

from .errors import LanguageError

#: ISO 639 code -> the English name that the model's prompt holds.
NAMES = {
    "ar": "Arabic",
    "cs": "Czech",
    "da": "Danish",
    "de": "German",
    "el": "Greek",
    "en": "English",
    "es": "Spanish",
    "fa": "Persian",
    "fi": "Finnish",
    "fil": "Filipino",
    "fr": "French",
    "hi": "Hindi",
    "hu": "Hungarian",
    "id": "Indonesian",
    "it": "Italian",
    "ja": "Japanese",
    "ko": "Korean",
    "mk": "Macedonian",
    "ms": "Malay",
    "nl": "Dutch",
    "pl": "Polish",
    "pt": "Portuguese",
    "ro": "Romanian",
    "ru": "Russian",
    "sv": "Swedish",
    "th": "Thai",
    "tr": "Turkish",
    "vi": "Vietnamese",
    "yue": "Cantonese",
    "zh": "Chinese",
}
# Other codes of the same languages: three letters (ISO 639-2 and -3), old ones, and what people write for Chinese.
_ALIASES = {
    "ara": "ar", "ces": "cs", "cze": "cs", "dan": "da", "deu": "de", "ger": "de", "ell": "el", "gre": "el", "eng": "en",
    "spa": "es", "fas": "fa", "per": "fa", "fin": "fi", "tl": "fil", "tgl": "fil", "fra": "fr", "fre": "fr", "hin": "hi",
    "hun": "hu", "ind": "id", "in": "id", "ita": "it", "jpn": "ja", "kor": "ko", "mkd": "mk", "mac": "mk", "msa": "ms",
    "may": "ms", "nld": "nl", "dut": "nl", "pol": "pl", "por": "pt", "ron": "ro", "rum": "ro", "rus": "ru", "swe": "sv",
    "tha": "th", "tur": "tr", "vie": "vi", "zho": "zh", "chi": "zh", "cmn": "zh", "mandarin": "zh", "farsi": "fa",
    "tagalog": "fil",
}  # fmt: skip
_CODE_OF = {name.lower(): code for code, name in NAMES.items()}


def code_of(name: str) -> str | None:
    """The ISO 639 code of a language named in English, in any case; None when it is not known."""
    return _CODE_OF.get(name.lower())


def name_of(language: str) -> str:
    """The English name for a name or a code in any case; as it was given when it is neither.

    A region or script after the code, as in zh-TW or pt_BR, says nothing about what is spoken and is left out, but for
    zh-HK and zh-yue, which are written for Cantonese.
    """
    wanted = language.strip().lower().replace("_", "-")
    code, _, region = wanted.partition("-")
    if code in ("zh", "zho", "chi") and region in ("hk", "yue", "mo"):
        return NAMES["yue"]
    code = _ALIASES.get(code, code)
    return NAMES.get(code) or NAMES.get(_CODE_OF.get(wanted, ""), language.strip())


def resolve(language: str, known: Sequence[str]) -> str:
    """A model's spelling of a language named or coded in any case, see ``name_of``.

    Raises:
        LanguageError: It is not among the known ones; the sentence lists those, with their codes.
    """
    name = name_of(language)
    for spelling in known:
        if spelling.lower() in (name.lower(), language.strip().lower()):
            return spelling
    listed = ", ".join(
        f"{spelling} ({code_of(spelling)})" if code_of(spelling) else spelling for spelling in known
    )
    raise LanguageError(f"the model does not know the language '{language.strip()}'; it knows {listed}")
