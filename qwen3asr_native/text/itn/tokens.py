"""Cuts text into the tokens of the grammar: numerals, units, keywords, protected words, and the rest."""

from __future__ import annotations

import re
from enum import Enum
from typing import NamedTuple

from . import lexicon
from .units import UNITS


class Kind(Enum):
    """What a token is to the grammar."""

    DIGIT = "digit"  # 零 to 九, 兩, 幺
    PLACE = "place"  # 十 百 千
    TENS = "tens"  # 廿 卅
    SCALE = "scale"  # 萬 億 兆
    UNIT = "unit"  # 個, 公斤, 年
    KEYWORD = "keyword"  # 分之, 比, 負
    LABEL = "label"  # 分機, 民國: a number follows
    PROTECTED = "protected"  # 一定, 星期三: no number
    LETTERS = "letters"
    ARABIC = "arabic"
    TEXT = "text"
    END = "end"


NUMERAL_KINDS = frozenset({Kind.DIGIT, Kind.PLACE, Kind.TENS, Kind.SCALE})


class Token(NamedTuple):
    """One token; ``start`` is its place in the source, ``value`` that of a numeral."""

    kind: Kind
    text: str
    start: int
    value: int = 0


def _vocabulary() -> dict[str, Kind]:
    words: dict[str, Kind] = dict.fromkeys(UNITS, Kind.UNIT)
    words.update(dict.fromkeys(lexicon.KEYWORDS, Kind.KEYWORD))
    words.update(dict.fromkeys(lexicon.PERCENT, Kind.KEYWORD))
    words.update(dict.fromkeys(lexicon.TIMES_OF_DAY, Kind.LABEL))
    words.update(dict.fromkeys(lexicon.LABELS | lexicon.VERSION, Kind.LABEL))
    words.update(dict.fromkeys(lexicon.SHORT_WEEKDAYS, Kind.PROTECTED))
    words.update(dict.fromkeys(lexicon.PROTECTED, Kind.PROTECTED))
    words.update(dict.fromkeys(lexicon.AGAIN, Kind.PROTECTED))
    words[lexicon.SECONDARY] = Kind.PROTECTED
    return words


_WORDS = _vocabulary()
_LENGTHS = {
    first: sorted({len(word) for word in _WORDS if word[0] == first}, reverse=True)
    for first in {word[0] for word in _WORDS}
}

_BEGINNINGS = {word[:length] for word in _WORDS for length in range(1, len(word))}
_MOST_DECIMALS = 8  # before a unit such as 千克
_LONGEST_WORD = max(map(len, _WORDS))
# Whatever is neither a numeral nor ASCII nor begins or is a word that the grammar asks for.
_PLAIN = re.compile(
    "[^" + re.escape("".join(sorted({*_LENGTHS, *lexicon.NUMERALS, *lexicon.CONTEXT}))) + "A-Za-z0-9]+"
)


def longest_word() -> int:
    """The length of the longest word of the vocabulary."""
    return _LONGEST_WORD


def begins_word(text: str) -> bool:
    """Whether a longer word of the vocabulary begins with ``text``."""
    return text in _BEGINNINGS


def is_plain(char: str) -> bool:
    """Whether ``char`` is without a meaning to the grammar and begins no word of the vocabulary."""
    return _PLAIN.match(char) is not None


def tokenize(text: str) -> list[Token]:
    """The tokens of ``text``, which they cover without a gap, and an END token."""
    tokens: list[Token] = []
    position = 0
    previous = Kind.END
    while position < len(text):
        token = (
            _plain(text, position)
            or _word(text, position, tokens)
            or _numeral(text, position, previous)
            or _latin(text, position)
            or Token(Kind.TEXT, text[position], position)
        )
        tokens.append(token)
        previous = token.kind
        position += len(token.text)
    tokens.append(Token(Kind.END, "", len(text)))
    return tokens


def _plain(text: str, position: int) -> Token | None:
    """A run of characters without a meaning to the grammar."""
    run = _PLAIN.match(text, position)
    return Token(Kind.TEXT, run.group(), position) if run else None


def _word(text: str, position: int, before: list[Token]) -> Token | None:
    """The longest word of the vocabulary at ``position``."""
    for length in _LENGTHS.get(text[position], ()):
        word = text[position : position + length]
        kind = _WORDS.get(word)
        if kind and _stands(word, text, position, before):
            return Token(kind, word, position)
    return None


def _stands(word: str, text: str, position: int, before: list[Token]) -> bool:
    """Whether the characters of ``word`` are that word here, and not numerals of a longer number."""
    after_numeral = bool(before) and (before[-1].kind in NUMERAL_KINDS or before[-1].kind is Kind.ARABIC)
    following = text[position + len(word) : position + len(word) + 1]
    if word in lexicon.TWO_OF:  # 三百兩 is a weight, but not 三兩個
        ends = following not in lexicon.NUMERALS and not following.isdecimal()
        return after_numeral and ends and not _begins_unit(text, position + 1)
    if word == lexicon.OVER:
        return following in lexicon.NUMERALS
    if word in lexicon.SHORT_WEEKDAYS:
        return not after_numeral and following not in lexicon.NOT_WEEKDAY_BEFORE
    if word in lexicon.PLACES_OR_COUNTS and _is_counted(text, position):
        return False
    if word in lexicon.AGAINST and (following in lexicon.NUMERALS or following.isdecimal()):  # 三對三
        return False
    if word in lexicon.STEPWISE and following in lexicon.DIGITS and _in_address(text, position):
        return False
    if following and following in lexicon.OTHER_WORD_BEFORE.get(word, ""):
        return False
    if word in lexicon.NAMES_BEFORE_NUMERAL:
        if following in lexicon.NUMERALS or following in lexicon.POINT or following.isdecimal():
            return False
        return not _begins_length(text, position + len(word)) and not (
            following == "度" and position > 0 and text[position - 1] in lexicon.RISEN
        )
    if word in lexicon.PERCENT and after_numeral:  # 百分之五百分之六, but 五百分之六
        return _is_percentage(before)
    if word in lexicon.AGAIN:
        if word[0] in "二三" or following in lexicon.MORE_THAN_AGAIN:
            return not after_numeral and _is_again(text, position, following)
        return False
    if word[0] not in lexicon.NUMERALS or word in lexicon.STICKY:
        return True
    if word in lexicon.KILO_UNITS:
        return after_numeral and _is_kilo(word, before)
    if word[0] in lexicon.ONE and _is_score(before):  # 四比一連勝, 三比零一路領先
        return before[-1].text != lexicon.SCORED
    if after_numeral:  # 20十八般武藝 stays, as numerals beside Arabic digits do
        return before[-1].kind is Kind.ARABIC
    if before and before[-1].kind is Kind.LABEL and lexicon.NUMERALS.issuperset(word):
        return False
    if before and (before[-1].text in lexicon.PERCENT or before[-1].text == lexicon.ORDINAL):
        return False
    if word in lexicon.PROTECTED_ALONE and following in UNITS:
        return False
    if word == lexicon.OF_MEDALS and text[position + 3 : position + 4] in lexicon.SILVER:  # 五金三銀
        return False
    return word[-1] not in lexicon.NUMERALS or following not in lexicon.NUMERALS


def _is_score(before: list[Token]) -> bool:
    """Whether 四比 or 四比零 stands before."""
    if before and before[-1].kind is Kind.DIGIT and before[-1].value == 0:
        before = before[:-1]
    return len(before) > 1 and before[-1].text == lexicon.SCORED and before[-2].kind in NUMERAL_KINDS


def _is_percentage(before: list[Token]) -> bool:
    """Whether the number that has just ended is one of percents."""
    for token in before[: -_MOST_DECIMALS - 12 : -1]:
        if token.text in lexicon.PERCENT or token.text == lexicon.OVER:  # 三分之一百分之五
            return True
        if token.kind not in NUMERAL_KINDS and token.text not in lexicon.POINT | lexicon.MINUS:
            return False
    return False


def _is_counted(text: str, position: int) -> bool:
    """收了九份文件, 收到九份文件; but 到九份玩."""
    before = text[max(0, position - 2) : position]
    return before not in lexicon.LEFT and (before[-1:] in lexicon.COUNTING or before in lexicon.GOT)


def _in_address(text: str, position: int) -> bool:
    """一點一點一點一."""
    return not lexicon.POINT.isdisjoint((text[position - 1 : position], text[position + 5 : position + 6]))


def _is_again(text: str, position: int, following: str) -> bool:
    """梅開二度, 二度開閘; but 升溫二度, 二度的角."""
    before = text[position - 1 : position] if position else ""
    measured = before in lexicon.MEASURED_BEFORE and before != ""
    return not measured and following != "" and following not in lexicon.NOT_AFTER_AGAIN


def _begins_length(text: str, position: int) -> bool:
    return any(
        UNITS[word].family in ("length", "weight") or word in lexicon.HIGHER_BY
        for length in range(1, _LONGEST_WORD + 1)
        if (word := text[position : position + length]) in UNITS
    )


def _begins_unit(text: str, position: int) -> bool:
    units = (UNITS.get(text[position : position + length]) for length in range(1, _LONGEST_WORD + 1))
    return any(unit is not None and unit.family != "medals" for unit in units)  # 三百兩銀子


def _is_kilo(word: str, before: list[Token]) -> bool:
    """三十一千米 is 31 千米, but 三千米 is 3000 米 and 三萬五千克 35000 克; of 五千克 both are true."""
    if before[-1].kind is not Kind.DIGIT or _are_decimals(before):
        return True
    earlier = before[-2].kind if len(before) > 1 else Kind.END
    return earlier is Kind.PLACE or (earlier not in NUMERAL_KINDS and word in lexicon.KILO_AFTER_DIGIT)


def _are_decimals(before: list[Token]) -> bool:
    """Whether the last tokens are digits after a point, as in 零點七五千克."""
    for token, earlier in zip(before[: -_MOST_DECIMALS - 1 : -1], before[-2 : -_MOST_DECIMALS - 2 : -1]):
        if token.text in lexicon.POINT:
            return earlier.kind is Kind.DIGIT
        if token.kind is not Kind.DIGIT:
            return False
    return False


def _numeral(text: str, position: int, previous: Kind) -> Token | None:
    char = text[position]
    if char in lexicon.SPOKEN_ONE and not _is_spoken_one(text, position, previous):
        return None
    if char == lexicon.CIRCLE and previous is not Kind.DIGIT:  # ○八年, ○九一二, but ○一、 in a list
        following = text[position + 1 : position + 3]
        if following[:1] not in lexicon.DIGITS or following[1:] not in lexicon.AFTER_ZERO_DIGIT:
            return None
    for kind, values in (
        (Kind.DIGIT, lexicon.DIGITS),
        (Kind.PLACE, lexicon.PLACES),
        (Kind.TENS, lexicon.TENS),
        (Kind.SCALE, lexicon.SCALES),
    ):
        if char in values:
            return Token(kind, char, position, values[char])
    return None


def _is_spoken_one(text: str, position: int, previous: Kind) -> bool:
    """么 is "one" only among digits: 幺二三零六, but not 什么一二三."""
    if previous is Kind.DIGIT:
        return True
    if position > 1 and text[position - 1] in lexicon.POINT and text[position - 2] in lexicon.DIGITS:
        return True  # 零點幺
    if position and text[position - 1] in lexicon.NOT_ONE_AFTER:
        return False
    following = text[position + 1 : position + 2]
    if following in lexicon.POINT and text[position] == "幺":  # 幺點幺點零點一
        following = text[position + 2 : position + 3]
    return following in lexicon.DIGITS


def _latin(text: str, position: int) -> Token | None:
    """A run of ASCII letters or of ASCII digits."""
    for kind, belongs in ((Kind.LETTERS, str.isalpha), (Kind.ARABIC, str.isdigit)):
        stop = position
        while stop < len(text) and text[stop].isascii() and belongs(text[stop]):
            stop += 1
        if stop > position:
            return Token(kind, text[position:stop], position)
    return None
