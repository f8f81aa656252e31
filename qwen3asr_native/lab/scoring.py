"""Error rates of a text against its reference, as it is and normalized."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from ..text.itn import normalize as digits_for_words
from .measure import extra

# Han, kana, and their extensions: written without spaces, so each character counts as a word.
_ALONE = re.compile(r"([\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff])")


@dataclass(frozen=True)
class ErrorRates:
    """Edit distance over length of the reference: of characters (cer) and of words (wer), 0 is perfect.

    The normalized ones compare after ``normalize_for_scoring`` on both sides.
    """

    cer: float
    wer: float
    cer_normalized: float
    wer_normalized: float


def normalize_for_scoring(text: str) -> str:
    """A text without what is a matter of style: NFKC, spoken Chinese numbers as digits, lower case, no punctuation."""
    text = digits_for_words(unicodedata.normalize("NFKC", text)).lower()
    text = "".join(" " if unicodedata.category(sign)[0] in "PSZC" else sign for sign in text)
    # A space between characters that are written without spaces has no meaning.
    text = re.sub(rf"(?<={_ALONE.pattern})\s+|\s+(?={_ALONE.pattern})", "", text)
    return " ".join(text.split())


def error_rates(text: str, reference: str) -> ErrorRates:
    """Raises ArgumentError without the library jiwer."""
    plain, normal = (text, reference), (normalize_for_scoring(text), normalize_for_scoring(reference))
    return ErrorRates(_cer(*plain), _wer(*plain), _cer(*normal), _wer(*normal))


def _cer(text: str, reference: str) -> float:
    if not reference:
        return float(len(text) > 0)
    return float(extra("jiwer").cer(reference, text))


def _wer(text: str, reference: str) -> float:
    words, reference_words = (" ".join(_ALONE.sub(r" \1 ", t).split()) for t in (text, reference))
    if not reference_words:
        return float(len(words) > 0)
    return float(extra("jiwer").wer(reference_words, words))
