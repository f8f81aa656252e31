"""Inverse text normalization of text that is still being made."""

from __future__ import annotations

from . import normalize
from .lexicon import BEFORE_WORDS
from .numbers import is_simplified
from .tokens import Kind, begins_word, is_plain, longest_word, tokenize


class StreamNormalizer:
    """Takes text in pieces and gives its normalization as soon as no later text can change it.

    The pieces returned by `feed` and the last one by `flush` add up to exactly what `normalize` returns for
    the whole text. Text goes out up to the last character that has no meaning to the grammar: held back are
    numbers, units, and the other words that the grammar knows, until such a character follows.
    """

    def __init__(self) -> None:
        self._held = ""
        self._simplified = False  # as far as the text before what is held tells

    def feed(self, piece: str) -> str:
        """Take the next piece of text; return the normalized text that has become certain."""
        self._held += piece
        # What stands farther back has been looked at when no open word reached it any more.
        recent = self._held[-longest_word() - len(piece) :]
        cut = _last_cut(self._held) if any(map(is_plain, recent)) else 0
        ready, self._held = self._held[:cut], self._held[cut:]
        return self._normalized(ready)

    def flush(self) -> str:
        """End of the text: return the rest. The normalizer is then ready for another text."""
        rest, self._held = self._held, ""
        result = self._normalized(rest)
        self._simplified = False
        return result

    def _normalized(self, text: str) -> str:
        result = normalize(text, self._simplified)
        self._simplified = self._simplified or is_simplified(text)
        return result


def _last_cut(text: str) -> int:
    """The last place at which ``text`` can be normalized in two parts; 0 if there is none."""
    open_word = _open_word(text)
    tokens = tokenize(text)
    for token, following in zip(reversed(tokens[:-1]), reversed(tokens)):
        plain = token.kind is Kind.TEXT and is_plain(token.text[0])
        if plain and token.text[-1] not in BEFORE_WORDS and following.start <= open_word:
            return following.start
    return 0


def _open_word(text: str) -> int:
    """Where a word of the grammar begins that later text may complete; the text's length if nowhere."""
    for start in range(max(0, len(text) - longest_word() + 1), len(text)):
        if begins_word(text[start:]):
            return start
    return len(text)
