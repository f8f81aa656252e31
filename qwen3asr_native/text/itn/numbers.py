"""Reads Chinese numbers: from tokens to Arabic digits."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from . import lexicon
from .tokens import NUMERAL_KINDS, Kind, Token


class Form(Enum):
    """How a number is said, which decides how sure it is that it is one."""

    DIGIT = "三"
    TEN = "十"
    TWO_DIGITS = "八五"
    PAIR = "七八"  # two digits that may also say "seven or eight"
    DIGITS = "零九一二"
    CARDINAL = "三百二十"
    RANGE = "三四十"
    DECIMAL = "三點一四"


class Number(NamedTuple):
    """A number in the tokens up to ``stop``, written with Arabic digits."""

    form: Form
    stop: int
    text: str = ""
    value: int = -1  # of a DIGIT, TEN, CARDINAL
    approximate: str = ""  # of a PAIR: "7~8"

    @property
    def is_small(self) -> bool:
        """One or two: an article as much as a number."""
        return self.form is Form.DIGIT and self.value in (1, 2)


class Source:
    """The tokens of a text and, each read only once, the numbers in them.

    Args:
        tokens: See `tokenize`.
        simplified: Whether the text before them is in the simplified script.
    """

    def __init__(self, tokens: list[Token], simplified: bool = False) -> None:
        self._tokens = tokens
        places = (i for i, token in enumerate(tokens) if is_simplified(token.text))
        self._simplified_from = -1 if simplified else next(places, len(tokens))
        self._numbers: dict[int, Number | None] = {}
        self._integers: dict[int, Number | None] = {}

    def __getitem__(self, position: int) -> Token:
        return self._tokens[position]

    def number(self, start: int) -> Number | None:
        """See `read_number`."""
        if start not in self._numbers:
            self._numbers[start] = self._in_script(start, read_number(self._tokens, start))
        return self._numbers[start]

    def part(self, start: int, stop: int) -> Number | None:
        """The whole number that exactly the tokens from ``start`` to ``stop`` say."""
        end = Token(Kind.END, "", 0)
        number = read_integer([*self._tokens[start:stop], end, end], 0)
        if number is None or number.stop != stop - start:
            return None
        return number._replace(stop=stop)

    def integer(self, start: int) -> Number | None:
        """See `read_integer`."""
        if start not in self._integers:
            self._integers[start] = self._in_script(start, read_integer(self._tokens, start))
        return self._integers[start]

    def _in_script(self, start: int, number: Number | None) -> Number | None:
        """The 億 that nobody said in 三兆二, in the script of the text."""
        if number is None or "兆" not in number.text or self._simplified_from >= number.stop:
            return number
        if any(token.text == "億" for token in self._tokens[start : number.stop]):
            return number
        return number._replace(text=number.text.replace("億", "亿"))


def is_simplified(text: str) -> bool:
    """Whether a character tells that the text is in the simplified script."""
    return not lexicon.SIMPLIFIED.isdisjoint(text)


def read_number(tokens: list[Token], start: int) -> Number | None:
    """The whole number or decimal that starts at ``start``.

    Returns:
        None where no number starts, or numerals that make none, as 五二十.
    """
    whole = read_integer(tokens, start)
    if whole is None or whole.form is Form.RANGE:
        return whole
    return _decimal(tokens, whole) or whole


def read_integer(tokens: list[Token], start: int) -> Number | None:
    """As `read_number`, but only the whole number."""
    first = tokens[start]
    if first.kind not in (Kind.DIGIT, Kind.TENS) and first.text != "十":
        return None
    stop = _digits_stop(tokens, start)
    if tokens[stop].kind not in NUMERAL_KINDS:
        return _digit_string(tokens, start, stop)
    if tokens[stop].kind is Kind.TENS and stop > start:  # 五卅
        return None
    if stop - start > 2:
        return _scaled_digits(tokens, start, stop)
    return _cardinal(tokens, start)


def _digits_stop(tokens: list[Token], start: int) -> int:
    stop = start
    while tokens[stop].kind is Kind.DIGIT:
        stop += 1
    return stop


def _written(tokens: list[Token], start: int, stop: int) -> str:
    return "".join([str(token.value) for token in tokens[start:stop]])


_SURELY_DIGITS = 6  # so many in a row count nothing


def _digit_string(tokens: list[Token], start: int, stop: int) -> Number | None:
    """Digits without place words: 三, 八五, 零九一二三四五六七八."""
    said = [token.text for token in tokens[start:stop]]
    text = _written(tokens, start, stop)
    first, last = tokens[start].value, tokens[stop - 1].value
    in_address = tokens[stop].text in lexicon.POINT and tokens[stop + 1].kind is Kind.DIGIT
    if len(said) < 3 and not in_address and not lexicon.SPOKEN_ONE.isdisjoint(said):
        return None
    if len(said) == 1:
        return Number(Form.DIGIT, stop, text, first)
    if len(said) == 2 and _is_pair(first, last):
        return Number(Form.PAIR, stop, text, approximate=f"{first}~{last}")
    told = len(said) >= _SURELY_DIGITS or (
        len(said) > 2 and start > 0 and tokens[start - 1].kind is Kind.LABEL
    )
    if not told and not lexicon.TWO_OF.isdisjoint(said):  # 兩 counts things, but 零九兩二三四五六七
        return None
    return Number(Form.TWO_DIGITS if len(said) == 2 else Form.DIGITS, stop, text)


def _scaled_digits(tokens: list[Token], start: int, stop: int) -> Number | None:
    """一零零萬: digits in front of a scale word."""
    end, suffix, _ = _scales(tokens, stop)
    if not suffix or tokens[end].kind in NUMERAL_KINDS:
        return None
    return Number(Form.CARDINAL, end, _written(tokens, start, stop) + suffix)


def _is_pair(first: int, second: int) -> bool:
    return (first > 0 and second == first + 1) or (first, second) == (3, 5)


def _scales(tokens: list[Token], position: int) -> tuple[int, str, int]:
    """The scale words at ``position``: where they stop, as text, and their value (萬億: 10**12)."""
    text, value = "", 1
    while tokens[position].kind is Kind.SCALE:
        text += tokens[position].text
        value *= tokens[position].value
        position += 1
    return position, text, value


class _Section(NamedTuple):
    """A number below 10000, or a range of them."""

    stop: int
    low: int
    high: int


def _section(tokens: list[Token], position: int, ones: int) -> _Section | None:
    """Read digits with place words, as 三百零五 or 五六百.

    Args:
        ones: what a digit at the start counts: 1, or the place below the last scale word (一萬五: 1000).
    """
    start, total, limit, after_zero = position, 0, 10**4, False
    while tokens[position].kind in (Kind.DIGIT, Kind.PLACE, Kind.TENS):
        token, following = tokens[position], tokens[position + 1]
        if token.kind is not Kind.DIGIT:
            if token.value >= 100 or limit <= 10 or not (total == 0 or after_zero or limit == 100):
                break
            total, limit, ones, after_zero = total + token.value, 10, 1, False
            position += 1
        elif token.value == 0:
            ones, after_zero = 1, True
            position += 1
        elif following.kind is Kind.PLACE and following.value < limit:
            limit = following.value
            total, ones, after_zero = total + token.value * limit, max(limit // 10, 1), False
            position += 2
        elif following.kind is Kind.DIGIT:
            return _pair_section(tokens, position, total, limit, ones)
        else:
            total += token.value * (1 if following.kind is Kind.SCALE else ones)
            return _Section(position + 1, total, total)
    return None if position == start or after_zero else _Section(position, total, total)


def _pair_section(tokens: list[Token], position: int, total: int, limit: int, ones: int) -> _Section | None:
    """The end of a section that names two numbers: 六七 in 二百六七, 二三十 in 一百二三十."""
    first, second, place = tokens[position].value, tokens[position + 1].value, tokens[position + 2]
    if not _is_pair(first, second):
        return None
    position += 2
    if place.kind is Kind.PLACE and place.value < limit:
        ones = place.value
        position += 1
    elif place.kind is Kind.SCALE:
        ones = 1
    return _Section(position, total + first * ones, total + second * ones)


def _cardinal(tokens: list[Token], start: int) -> Number | None:
    """A number with place words: 十, 三百二十, 一億兩千萬, 四十五六萬."""
    position, ones, smallest = start, 1, 10**17
    low = high = 0
    groups = ""  # 1億2000萬
    scaled = True  # nothing below the last scale word
    while tokens[position].kind in (Kind.DIGIT, Kind.PLACE, Kind.TENS):
        below, unit = lexicon.COUNTED_BY.get(tokens[position - 1].text if position > start else "", ("", 1))
        section = _section(tokens, position, ones)
        if section is None:
            return None
        before = position
        position, suffix, scale = _scales(tokens, section.stop)
        if below and section.low >= unit and not suffix:  # 五億三: 5億3000萬
            section, suffix, scale = _divided(section, unit), below, unit
        elif below and section.low and section.low % 100 == 0 and not suffix and tokens[before].value != 0:
            suffix, scale = below, unit  # 一億三千: 1億3000萬
        if scale == smallest or low != high:
            return None
        if scale > smallest:  # 一萬兩千億: the scale word counts all that was said
            low, high = low + section.low, high + section.high
            groups = _span(low, high) + suffix
            low, high = low * scale, high * scale
        else:
            groups += _span(section.low, section.high) + suffix
            low, high = low + section.low * scale, high + section.high * scale
        ones, smallest, scaled = scale // 10, scale, bool(suffix)
        if not suffix:
            break
    if tokens[position].kind in NUMERAL_KINDS:
        return None
    text = groups if scaled else _span(low, high)
    if low != high:
        return Number(Form.RANGE, position, text)
    return Number(Form.TEN if position == start + 1 else Form.CARDINAL, position, text, low)


def _divided(section: _Section, scale: int) -> _Section:
    return _Section(section.stop, section.low // scale, section.high // scale)


def _span(low: int, high: int) -> str:
    return str(low) if low == high else f"{low}~{high}"


def _decimal(tokens: list[Token], whole: Number) -> Number | None:
    """三點一四, 二十點一萬, and with more points a version or an address: 一九二點一六八點零點一."""
    text = whole.text if whole.value < 0 else str(whole.value)
    stop, points = whole.stop, 0
    while tokens[stop].text in lexicon.POINT and tokens[stop + 1].kind is Kind.DIGIT:
        end = _digits_stop(tokens, stop + 1)
        digits = tokens[stop + 1 : end]
        if tokens[end].kind is Kind.PLACE or any(token.text in lexicon.TWO_OF for token in digits):
            break
        text += "." + _written(tokens, stop + 1, end)
        stop, points = end, points + 1
    if points == 0:
        return None
    end, suffix, _ = _scales(tokens, stop)
    if tokens[end].kind in NUMERAL_KINDS:
        return None
    return Number(Form.DECIMAL, end, text + suffix)
