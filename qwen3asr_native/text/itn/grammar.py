"""The grammar: what stands around a number decides whether it is one and how it is written.

Each rule looks at the tokens from one place on and returns a `Match`, or None when it does not apply; the
first rule of `RULES` that applies wins. Rules look a bounded number of tokens and numbers ahead.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Optional

from . import lexicon
from .numbers import Form, Number, read_integer, read_number
from .tokens import NUMERAL_KINDS, Kind, Token

LONGEST_CHAIN = 6


class Edit(NamedTuple):
    """Tokens ``start`` to ``stop`` are written as ``text``."""

    start: int
    stop: int
    text: str


class Match(NamedTuple):
    """A rule has dealt with all tokens up to ``stop``."""

    stop: int
    edits: list[Edit]


Rule = Callable[[list[Token], int], Optional[Match]]


def parse(tokens: list[Token]) -> list[Edit]:
    """All edits of a text, from left to right."""
    edits: list[Edit] = []
    position = 0
    while tokens[position].kind is not Kind.END:
        match = _first_match(tokens, position)
        if match is None:
            position += 1
            continue
        if edits and match.edits and _runs_together(edits[-1], match.edits[0]):
            match = Match(_numerals_stop(tokens, position), [])
        edits += match.edits
        position = match.stop
    return edits


def _runs_together(edit: Edit, following: Edit) -> bool:
    """Two numbers with nothing between them would become one."""
    return edit.stop == following.start and edit.text[-1:].isdigit() and following.text[0].isdigit()


def _numerals_stop(tokens: list[Token], start: int) -> int:
    stop = start
    while tokens[stop].kind in NUMERAL_KINDS:
        stop += 1
    return stop


def _first_match(tokens: list[Token], position: int) -> Match | None:
    if tokens[position].kind not in (Kind.DIGIT, Kind.PLACE, Kind.SCALE, Kind.KEYWORD):
        return None
    for rule in RULES:
        match = rule(tokens, position)
        if match is not None:
            return match
    return None


# -- what stands around a number ------------------------------------------------------------------------------


def _before(tokens: list[Token], position: int) -> Token:
    return tokens[position - 1] if position else tokens[-1]


def _after_letters(tokens: list[Token], position: int) -> bool:
    """The number continues a name: iPhone四, PS五; but not the g of 25g."""
    if _before(tokens, position).kind is not Kind.LETTERS:
        return False
    earlier = _before(tokens, position - 1)
    return (
        earlier.kind is not Kind.ARABIC
        and earlier.kind not in NUMERAL_KINDS
        and earlier.text not in lexicon.MARKS
    )


def _unit(tokens: list[Token], position: int) -> lexicon.Unit | None:
    token = tokens[position]
    return lexicon.UNITS[token.text] if token.kind is Kind.UNIT else None


def _counts(tokens: list[Token], number: Number) -> bool:
    """The unit after ``number`` makes even a single digit a number."""
    unit = _unit(tokens, number.stop)
    return unit is not None and unit.counts_digit


def _touches_arabic(tokens: list[Token], start: int, stop: int) -> bool:
    return Kind.ARABIC in (_before(tokens, start).kind, tokens[stop].kind)


def _usable(number: Number | None) -> bool:
    return number is not None and number.form is not Form.BROKEN


# -- numerals that are no number ------------------------------------------------------------------------------


def leave_alone(tokens: list[Token], start: int) -> Match | None:
    """Numerals that make no number, 幾十 and 數百萬, and what touches Arabic digits stay as they are."""
    if tokens[start].kind not in NUMERAL_KINDS:
        return None
    stop = _numerals_stop(tokens, start)
    vague = tokens[start].kind is Kind.PLACE and _before(tokens, start).text in lexicon.APPROXIMATE
    if vague or _touches_arabic(tokens, start, stop) or not _usable(read_integer(tokens, start)):
        return Match(stop, [])
    return None


# -- numbers with signs and marks -----------------------------------------------------------------------------


def percentage(tokens: list[Token], start: int) -> Match | None:
    """百分之三十 -> 30%, 千分之三 -> 3‰, 百分之二十到三十 -> 20%到30%."""
    mark = lexicon.PERCENT.get(tokens[start].text)
    if mark is None:
        return None
    if tokens[start + 1].text == "百" and tokens[start + 2].kind not in NUMERAL_KINDS:
        return Match(start + 2, [Edit(start, start + 2, "100" + mark)])
    number = read_number(tokens, start + 1)
    if number is None or not _usable(number):
        return None
    stop, more = number.stop, ""
    if tokens[stop].text in lexicon.AND_MORE | lexicon.AND_SOME:
        stop, more = stop + 1, tokens[stop].text
    edits = [Edit(start, stop, number.text + more + mark)]
    if tokens[stop].text in lexicon.CONNECTORS:
        other = read_number(tokens, stop + 1)
        if other is not None and _usable(other) and _unit(tokens, other.stop) is None:
            edits.append(Edit(stop + 1, other.stop, other.text + mark))
            stop = other.stop
    return Match(stop, edits)


def negative(tokens: list[Token], start: int) -> Match | None:
    """負五度 -> -5度, 負百分之三 -> -3%."""
    before = _before(tokens, start)
    after_number = before.kind in NUMERAL_KINDS or before.kind is Kind.ARABIC or before.text in lexicon.MARKS
    if tokens[start].text not in lexicon.MINUS or after_number:
        return None
    share = percentage(tokens, start + 1)
    if share is not None:
        first = share.edits[0]
        return Match(share.stop, [Edit(start, first.stop, "-" + first.text), *share.edits[1:]])
    number = read_number(tokens, start + 1)
    if number is None or not _usable(number) or number.form in (Form.PAIR, Form.RANGE):
        return None
    return Match(number.stop, [Edit(start, number.stop, "-" + number.text)])


def ordinal(tokens: list[Token], start: int) -> Match | None:
    """第二十三屆 -> 第23屆; with a single digit it stays: 第一次, 第三名."""
    if tokens[start].text != "第":
        return None
    number = read_integer(tokens, start + 1)
    if number is None:
        return None
    if number.form in (Form.DIGIT, Form.TWO_DIGITS, Form.PAIR, Form.BROKEN):
        return Match(number.stop, [])
    return Match(number.stop, [Edit(start + 1, number.stop, number.text)])


# -- dates and times ------------------------------------------------------------------------------------------


def date(tokens: list[Token], start: int) -> Match | None:
    """二〇二六年三月八日 -> 2026年3月8日, 十月一日 -> 10月1日; 六月 alone stays."""
    edits: list[Edit] = []
    stop = start
    year = read_integer(tokens, start)
    if year is not None and year.form is not Form.RANGE and tokens[year.stop].text == "年":
        if year.form is Form.DIGIT and _before(tokens, start).text not in lexicon.ERAS:
            return None
        edits.append(Edit(start, year.stop, year.text))
        stop = year.stop + 1
    month = _calendar_number(tokens, stop, 12)
    if month is None or tokens[month.stop].text != "月":
        if edits and year is not None and year.form is not Form.PAIR:
            return Match(stop, edits)
        return None
    edits.append(Edit(stop, month.stop, month.text))
    stop = month.stop + 1
    day = _calendar_number(tokens, stop, 31)
    if day is not None and tokens[day.stop].text in lexicon.DAY:
        edits.append(Edit(stop, day.stop, day.text))
        stop = day.stop + 1
    elif day is not None and day.form is not Form.DIGIT and _unit(tokens, day.stop) is None:
        edits.append(Edit(stop, day.stop, day.text))
        stop = day.stop
    return Match(stop, edits) if len(edits) > 1 else None


def _calendar_number(tokens: list[Token], start: int, largest: int) -> Number | None:
    number = read_integer(tokens, start)
    if number is None or number.form not in (Form.DIGIT, Form.TEN, Form.CARDINAL):
        return None
    return number if 1 <= number.value <= largest else None


def time_of_day(tokens: list[Token], start: int) -> Match | None:
    """九點二十五分 -> 09:25, 十三點十分三十六秒 -> 13:10:36; 三點半 and 下午三點 stay."""
    hour = read_integer(tokens, start)
    if hour is None or not 0 <= hour.value <= 24 or _after_letters(tokens, start):
        return None
    mark = tokens[hour.stop].text
    if mark not in lexicon.POINT and mark not in lexicon.HOUR_WORD:
        return None
    minute = _sixtieth(tokens, hour.stop + 1)
    if minute is None:
        return None
    stop, text = minute.stop, f"{hour.value:02}:{minute.value:02}"
    if tokens[stop].text != "分":
        said_as_decimal = tokens[hour.stop + 1].kind is Kind.DIGIT and tokens[hour.stop + 1].value == 0
        sure = minute.value >= 10 or (said_as_decimal and _before(tokens, start).text in lexicon.TIMES_OF_DAY)
        if mark in lexicon.HOUR_WORD or not sure:
            return None
        return Match(stop, [Edit(start, stop, text)])
    stop += 1
    second = _sixtieth(tokens, stop)
    if second is not None and tokens[second.stop].text == "秒":
        stop, text = second.stop + 1, f"{text}:{second.value:02}"
    return Match(stop, [Edit(start, stop, text)])


def _sixtieth(tokens: list[Token], start: int) -> Number | None:
    """A number of minutes or seconds: 五, 零五, 四十五."""
    if tokens[start].kind is Kind.DIGIT and tokens[start].value == 0:
        number = read_integer(tokens, start + 1)
        return number if number is not None and number.form is Form.DIGIT else None
    number = read_integer(tokens, start)
    return number if number is not None and 0 <= number.value <= 59 else None


def version(tokens: list[Token], start: int) -> Match | None:
    """Python三點十二 -> Python3.12."""
    if not _after_letters(tokens, start):
        return None
    major = read_integer(tokens, start)
    if major is None or not _usable(major) or tokens[major.stop].text not in lexicon.POINT:
        return None
    minor = read_integer(tokens, major.stop + 1)
    if minor is None or minor.form not in (Form.TEN, Form.CARDINAL):
        return None
    return Match(minor.stop, [Edit(start, minor.stop, f"{major.text}.{minor.text}")])


# -- two numbers and more -------------------------------------------------------------------------------------


def fraction(tokens: list[Token], start: int) -> Match | None:
    """三分之二 -> 2/3."""
    below = read_integer(tokens, start)
    if below is None or not _usable(below) or tokens[below.stop].text != "分之":
        return None
    above = read_number(tokens, below.stop + 1)
    if above is None or not _usable(above):
        return None
    edit = Edit(start, above.stop, f"{above.text}/{below.text}")
    return Match(above.stop, [edit])


def mixed_fraction(tokens: list[Token], start: int) -> Match | None:
    """一又二分之一 -> 1又1/2."""
    whole = read_integer(tokens, start)
    if whole is None or not _usable(whole) or tokens[whole.stop].text != "又":
        return None
    part = fraction(tokens, whole.stop + 1)
    if part is None:
        return None
    return Match(part.stop, [Edit(start, whole.stop, whole.text), *part.edits])


def ratio(tokens: list[Token], start: int) -> Match | None:
    """十七比十六 -> 17:16; a comparison such as 三比二大 stays."""
    number = read_number(tokens, start)
    parts: list[str] = []
    stop = start
    while number is not None and _usable(number) and number.form is not Form.RANGE:
        parts.append(number.text)
        stop = number.stop
        if tokens[stop].text != "比":
            break
        number = read_number(tokens, stop + 1)
    if len(parts) < 2 or tokens[stop].text in lexicon.COMPARATIVE_AFTER_RATIO | lexicon.AND_MORE:
        return None
    return Match(stop, [Edit(start, stop, ":".join(parts))])


def arithmetic(tokens: list[Token], start: int) -> Match | None:
    """一加一等於二 -> 1加1等於2; without a result only beside longer numbers: 二十加三 -> 20加3."""
    numbers: list[tuple[int, Number]] = []
    position, result = start, False
    while len(numbers) < LONGEST_CHAIN and not result:
        number = read_number(tokens, position)
        if number is None or not _usable(number):
            break
        numbers.append((position, number))
        operator = tokens[number.stop].text
        result = bool(numbers[:-1]) and tokens[position - 1].text in lexicon.EQUALS
        if operator not in lexicon.OPERATORS and operator not in lexicon.EQUALS:
            break
        position = number.stop + 1
    if len(numbers) < 2 or (not result and all(number.form is Form.DIGIT for _, number in numbers)):
        return None
    return Match(numbers[-1][1].stop, [Edit(at, number.stop, number.text) for at, number in numbers])


def span(tokens: list[Token], start: int) -> Match | None:
    """三到五天 -> 3到5天, 二十到三十歲 -> 20到30歲, 八點到十二點 -> 8點到12點."""
    first = read_number(tokens, start)
    if first is None or not _usable(first):
        return None
    unit_of_first = tokens[first.stop] if _unit(tokens, first.stop) else None
    link = first.stop + (1 if unit_of_first else 0)
    if tokens[link].text not in lexicon.CONNECTORS:
        return None
    second = read_number(tokens, link + 1)
    if second is None or not _usable(second):
        return None
    if unit_of_first and tokens[second.stop].text != unit_of_first.text:
        return None
    single = first.form is Form.DIGIT and second.form is Form.DIGIT
    if single and not (_counts(tokens, second) and not unit_of_first):
        return None
    edits = [Edit(start, first.stop, first.text)]
    if unit_of_first:
        edits += _symbol(tokens, first.stop)
    edits += [Edit(link + 1, second.stop, second.text), *_symbol(tokens, second.stop)]
    return Match(second.stop + (1 if _unit(tokens, second.stop) else 0), edits)


def compound(tokens: list[Token], start: int) -> Match | None:
    """Numbers with units of one family: 一小時三十分 -> 1小時30分, 十六巷一號五樓之二 -> 16巷1號5樓之2."""
    links: list[tuple[int, Number]] = []
    position = start
    family = ""
    while len(links) < LONGEST_CHAIN:
        number = read_number(tokens, position)
        if number is None or not _usable(number) or number.form in (Form.PAIR, Form.RANGE):
            break
        this = _family(tokens, number.stop)
        if not this or (family and this != family):
            break
        links.append((position, number))
        family, position = this, number.stop + 1
    if family == "address" and tokens[position].text == "之":
        number = read_integer(tokens, position + 1)
        if number is not None and _usable(number):
            links.append((position + 1, number))
            position = number.stop
    if len(links) < 2 or all(number.is_small for _, number in links):
        return None
    edits: list[Edit] = []
    for at, number in links:
        edits += [Edit(at, number.stop, number.text), *_symbol(tokens, number.stop)]
    return Match(position, edits)


def _family(tokens: list[Token], position: int) -> str:
    unit = _unit(tokens, position)
    if unit is None:
        return ""
    return "address" if tokens[position].text in lexicon.NUMBER_SIGN else unit.family


def _symbol(tokens: list[Token], position: int) -> list[Edit]:
    unit = _unit(tokens, position)
    return [Edit(position, position + 1, unit.symbol)] if unit and unit.symbol else []


# -- one number -----------------------------------------------------------------------------------------------


def single_number(tokens: list[Token], start: int) -> Match | None:
    """Everything else: 三百二十, 零九一二三四五六七八, 二十五千克 -> 25kg, 三四十個 -> 30~40個, iPhone四."""
    number = read_number(tokens, start)
    if number is not None and number.form is Form.DECIMAL and not _is_decimal(tokens, start):
        number = read_integer(tokens, start)
    if number is None:
        return None
    tail = _tail(tokens, number)
    text = number.text if tail and number.is_small else _written_form(tokens, start, number)
    if text is None:
        return Match(number.stop, [])
    edits = [Edit(start, number.stop, text), *_symbol(tokens, number.stop)]
    stop = number.stop + (1 if _unit(tokens, number.stop) else 0)
    if tail:
        edits.append(Edit(stop, tail.stop, tail.text))
        stop = tail.stop
    return Match(stop, edits)


def _tail(tokens: list[Token], number: Number) -> Number | None:
    """The decimal digits said after the unit: 三十七度五, 九秒五八."""
    if tokens[number.stop].text not in lexicon.TAIL_UNITS:
        return None
    tail = read_integer(tokens, number.stop + 1)
    if tail is None or tail.form not in (Form.DIGIT, Form.TWO_DIGITS, Form.PAIR):
        return None
    return None if _unit(tokens, tail.stop) else tail


def _is_decimal(tokens: list[Token], start: int) -> bool:
    """Not in 下午三點一個人 and 快一點三個人."""
    before = _before(tokens, start)
    if before.text in lexicon.TIMES_OF_DAY:
        return False
    return not (tokens[start].text == "一" and before.text in lexicon.COMPARATIVE_BEFORE_A_BIT)


def _written_form(tokens: list[Token], start: int, number: Number) -> str | None:
    """``number`` in Arabic digits; None when it is not surely a number and stays."""
    named = _after_letters(tokens, start) or _before(tokens, start).text in lexicon.LABELS
    following = tokens[number.stop]
    if number.form in (Form.DIGITS, Form.CARDINAL, Form.RANGE, Form.DECIMAL):
        return number.text
    if number.form is Form.DIGIT:
        return number.text if _digit_counts(tokens, start, number, named) else None
    if number.form is Form.TEN:
        counts = following.kind is Kind.UNIT and following.text not in lexicon.NOT_AFTER_TEN
        return number.text if named or counts or following.text in lexicon.AND_MORE else None
    if named or following.kind is Kind.LETTERS:
        return number.text
    if number.form is Form.PAIR:
        return number.approximate if following.kind is Kind.UNIT else None
    has_zero = any(token.value == 0 for token in tokens[start : number.stop])
    return number.text if has_zero or following.text in lexicon.AFTER_TWO_DIGITS else None


def _digit_counts(tokens: list[Token], start: int, number: Number, named: bool) -> bool:
    """Whether a single digit is a number here."""
    following = tokens[number.stop]
    if tokens[start].text in lexicon.TWO_OF:
        return False
    if following.kind is Kind.LETTERS:
        return number.value != 1 or len(following.text) <= 2
    if named and number.value != 1:
        return True
    if named:
        return _one_is_a_name(_before(tokens, start), following)
    if number.value == 0:
        return following.text in lexicon.ZERO_UNITS
    if number.value == 1:
        return following.text in lexicon.KILO_AFTER_DIGIT
    return _counts(tokens, number)


def _one_is_a_name(before: Token, following: Token) -> bool:
    """一 is a name in B一停車場 and 請按一, but not in 這個APP一打開."""
    if before.text in lexicon.KEYS or (before.kind is Kind.LETTERS and len(before.text) == 1):
        return following.text not in lexicon.THINGS
    return following.kind not in (Kind.TEXT, Kind.UNIT) or not following.text.isalpha()


RULES: tuple[Rule, ...] = (
    leave_alone,
    percentage,
    negative,
    ordinal,
    date,
    version,
    time_of_day,
    mixed_fraction,
    fraction,
    ratio,
    arithmetic,
    span,
    compound,
    single_number,
)
