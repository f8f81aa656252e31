"""The grammar: what stands around a number decides whether it is one and how it is written.

Each rule looks at the tokens from one place on and returns a `Match`, or None when it does not apply; the
first rule of `RULES` that applies wins. Rules look a bounded number of tokens and numbers ahead.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Optional

from . import lexicon
from .numbers import Form, Number, Source
from .tokens import NUMERAL_KINDS, Kind, Token
from .units import UNITS, Unit

LONGEST_CHAIN = 6
MOST_IN_A_SET = 40


class Edit(NamedTuple):
    """Tokens ``start`` to ``stop`` are written as ``text``."""

    start: int
    stop: int
    text: str


class Match(NamedTuple):
    """A rule has dealt with all tokens up to ``stop``."""

    stop: int
    edits: list[Edit]


Rule = Callable[[Source, int], Optional[Match]]


def parse(source: Source) -> list[Edit]:
    """All edits of a text, from left to right."""
    edits: list[Edit] = []
    position = 0
    while source[position].kind is not Kind.END:
        match = _first_match(source, position)
        if match is None:
            position += 1
            continue
        if edits and match.edits and _runs_together(edits[-1], match.edits[0]):
            match = Match(_numerals_stop(source, position), [])
        edits += match.edits
        # What begins with a word, 百分之, has no numerals to leave alone: then that word is.
        position = max(match.stop, position + 1)
    return edits


def _runs_together(edit: Edit, following: Edit) -> bool:
    """Two numbers with nothing between them would become one."""
    return edit.stop == following.start and edit.text[-1:].isdigit() and following.text[0].isdigit()


def _numerals_stop(source: Source, start: int) -> int:
    stop = start
    while source[stop].kind in NUMERAL_KINDS:
        stop += 1
    return stop


def _first_match(source: Source, position: int) -> Match | None:
    if source[position].kind not in NUMERAL_KINDS | {Kind.KEYWORD}:
        return None
    for rule in RULES:
        match = rule(source, position)
        if match is not None:
            return match
    return None


# -- what stands around a number ------------------------------------------------------------------------------


def _before(source: Source, position: int) -> Token:
    return source[position - 1] if position else source[-1]


def _after_letters(source: Source, position: int) -> bool:
    """The number continues a name: iPhone四, PS五; but not the g of 25g."""
    if _before(source, position).kind is not Kind.LETTERS:
        return False
    earlier = _before(source, position - 1)
    return earlier.kind not in (Kind.ARABIC, Kind.SCALE) and earlier.text not in lexicon.MARKS


def _unit(source: Source, position: int) -> Unit | None:
    token = source[position]
    return UNITS[token.text] if token.kind is Kind.UNIT else None


def _counts(source: Source, number: Number) -> bool:
    """The unit after ``number`` makes even a single digit a number."""
    unit = _unit(source, number.stop)
    return unit is not None and unit.counts_digit


def _touches_arabic(source: Source, start: int, stop: int) -> bool:
    return Kind.ARABIC in (_before(source, start).kind, source[stop].kind)


# -- numerals that are no number ------------------------------------------------------------------------------


def leave_alone(source: Source, start: int) -> Match | None:
    """Numerals that make no number, 幾十 and 數百萬, and what touches Arabic digits stay as they are."""
    if source[start].kind not in NUMERAL_KINDS:
        return None
    stop = _numerals_stop(source, start)
    vague = source[start].kind is Kind.PLACE and _before(source, start).text in lexicon.APPROXIMATE
    if source[stop].text in lexicon.APPROXIMATE and source[stop + 1].kind is Kind.PLACE:  # 一百幾十
        return Match(stop + 2, [])
    if (
        source[start].text in lexicon.TWO_OF and _before(source, start).text in lexicon.MARKS
    ):  # was 百分之三十兩
        return Match(stop, [])
    some = _before(source, start).text in lexicon.APPROXIMATE and source[max(0, start - 2)].text == "十"
    if some and _before(source, start - 2).kind not in NUMERAL_KINDS:  # 十幾二十個
        return Match(stop, [])
    lunar = _before(source, start).text in lexicon.LUNAR_MONTHS
    if vague or lunar or _touches_arabic(source, start, stop) or source.integer(start) is None:
        return Match(stop, [])
    return None


# -- numbers with signs and marks -----------------------------------------------------------------------------


def percentage(source: Source, start: int) -> Match | None:
    """百分之三十 -> 30%, 千分之三 -> 3‰, 百分之負二 -> -2%, 百分之二十到三十 -> 20%到30%."""
    mark = lexicon.PERCENT.get(source[start].text)
    if mark is None:
        return None
    if source[start + 1].text == "百" and source[start + 2].kind not in NUMERAL_KINDS:
        return Match(start + 2, [Edit(start, start + 2, "100" + mark)])
    sign = "-" if source[start + 1].text in lexicon.MINUS else ""
    number = source.number(start + 1 + len(sign))
    if number is None:
        return None
    range_ = range_with_comma(source, start + 1)  # 百分之三、四十
    if range_ is not None:
        return Match(range_.stop, [Edit(start, range_.stop, range_.edits[0].text + mark)])
    stop, more = number.stop, ""
    some = source[stop].text in lexicon.APPROXIMATE
    if some and source[stop + 1].kind is Kind.PLACE:  # 百分之一百幾十
        return Match(stop + 2, [])
    if source[stop].text in lexicon.POINT or (some and number.form is Form.TEN):  # 百分之零點幾, 百分之十幾
        return Match(stop, [])
    if source[stop].text in lexicon.AND_MORE | lexicon.APPROXIMATE:
        stop, more = stop + 1, source[stop].text
    edits = [Edit(start, stop, sign + (number.approximate or number.text) + more + mark)]
    if source[stop].text in lexicon.CONNECTORS:
        other = source.number(stop + 1)
        if other is not None and _unit(source, other.stop) is None:
            edits.append(Edit(stop + 1, other.stop, other.text + mark))
            stop = other.stop
    return Match(stop, edits)


def negative(source: Source, start: int) -> Match | None:
    """負五度 -> -5度, 負百分之三 -> -3%, 負二分之一 -> -1/2."""
    before = _before(source, start)
    after_number = before.kind in NUMERAL_KINDS or before.kind is Kind.ARABIC or before.text in lexicon.MARKS
    if source[start].text not in lexicon.MINUS or after_number:
        return None
    share = percentage(source, start + 1) or fraction(source, start + 1)
    if share is not None:
        if not share.edits:  # 負百分之零點幾
            return share
        first = share.edits[0]
        return Match(share.stop, [Edit(start, first.stop, "-" + first.text), *share.edits[1:]])
    number = source.number(start + 1)
    if number is None or number.form in (Form.PAIR, Form.RANGE):
        return None
    return Match(number.stop, [Edit(start, number.stop, "-" + number.text)])


def ordinal(source: Source, start: int) -> Match | None:
    """第二十三屆 -> 第23屆; with a single digit it stays: 第一次, 第三名, 第一、二屆."""
    if source[start].text != lexicon.ORDINAL:
        return None
    number = source.integer(start + 1)
    if number is None:
        return None
    if number.form in (Form.DIGIT, Form.TWO_DIGITS, Form.PAIR):
        return Match(_listed_stop(source, number.stop), [])
    return Match(number.stop, [Edit(start + 1, number.stop, number.text)])


def _listed_stop(source: Source, position: int) -> int:
    """The end of the single digits that go on a list or a range: 、二、三, 到五."""
    while source[position].text == lexicon.LIST_COMMA or source[position].text in lexicon.CONNECTORS:
        number = source.integer(position + 1)
        if number is None or number.form not in (Form.DIGIT, Form.TEN):
            break
        position = number.stop
    return position


# -- dates and times ------------------------------------------------------------------------------------------


def date(source: Source, start: int) -> Match | None:
    """二〇二六年三月八日 -> 2026年3月8日, 十月一日 -> 10月1日; 六月 alone stays."""
    edits: list[Edit] = []
    stop = start
    year = source.integer(start)
    if year is not None and year.form is not Form.RANGE and source[year.stop].text == "年":
        if year.form is Form.DIGIT and _before(source, start).text not in lexicon.ERAS:
            return None
        edits.append(Edit(start, year.stop, year.text))
        stop = year.stop + 1
    month = _calendar_number(source, stop, 12)
    if month is None or source[month.stop].text != "月":
        if edits and year is not None and year.form is not Form.PAIR:
            return Match(stop, edits)
        return None
    edits.append(Edit(stop, month.stop, month.text))
    stop = month.stop + 1
    day = _calendar_number(source, stop, 31)
    if day is not None and source[day.stop].text in lexicon.DAY:
        edits.append(Edit(stop, day.stop, day.text))
        stop = day.stop + 1
    elif day is not None and day.form is not Form.DIGIT and _unit(source, day.stop) is None:
        edits.append(Edit(stop, day.stop, day.text))
        stop = day.stop
    return Match(stop, edits) if len(edits) > 1 else None


def _calendar_number(source: Source, start: int, largest: int) -> Number | None:
    number = source.integer(start)
    if number is None or number.form not in (Form.DIGIT, Form.TEN, Form.CARDINAL):
        return None
    return number if 1 <= number.value <= largest else None


def time_of_day(source: Source, start: int) -> Match | None:
    """九點二十五分 -> 09:25, 十三點十分三十六秒 -> 13:10:36; 三點半 and 下午三點 stay."""
    hour = source.integer(start)
    if hour is None or not 0 <= hour.value <= 24 or _after_letters(source, start):
        return None
    mark = source[hour.stop].text
    if mark not in lexicon.POINT and mark not in lexicon.HOUR_WORD:
        return None
    minute = _sixtieth(source, hour.stop + 1)
    if minute is None:
        return None
    stop, text = minute.stop, f"{hour.value:02}:{minute.value:02}"
    if source[stop].text.startswith(lexicon.ON_THE_HOUR):  # 九點十點之間
        return None
    with_minutes = source[stop].text == "分"
    if (
        not with_minutes
        and hour.value == 1
        and _before(source, start).text in lexicon.COMPARATIVE_BEFORE_A_BIT
    ):
        return None  # 多一點二十個
    # With seconds, or with 時, nothing else can be meant: 十三點五分十秒, 三時三分.
    sure = with_minutes and (mark in lexicon.HOUR_WORD or _seconds(source, stop + 1) is not None)
    if minute.value < 10 and not sure and not _is_clock_minute(source, start, hour, with_minutes):
        return None
    if not with_minutes:
        return None if mark in lexicon.HOUR_WORD else Match(stop, [Edit(start, stop, text)])
    stop += 1
    second = _seconds(source, stop)
    if second is not None:
        stop, text = second.stop + 1, f"{text}:{second.value:02}"
    return Match(stop, [Edit(start, stop, text)])


def _seconds(source: Source, start: int) -> Number | None:
    second = _sixtieth(source, start)
    return second if second is not None and source[second.stop].text == "秒" else None


def _is_clock_minute(source: Source, start: int, hour: Number, with_minutes: bool) -> bool:
    """八點零五分 is a time; 八點五分 and 八點零五 could be decimals, unless something says when."""
    said_zero = source[hour.stop + 1].value == 0
    says_when = _before(source, start).text in lexicon.TIMES_OF_DAY
    if with_minutes:
        told = says_when or _before(source, start).text in lexicon.BEFORE_TIME
        return said_zero or told or source[_minute_stop(source, hour) + 1].text in lexicon.AFTER_TIME
    return said_zero and says_when


def _minute_stop(source: Source, hour: Number) -> int:
    minute = _sixtieth(source, hour.stop + 1)
    return hour.stop if minute is None else minute.stop


def _sixtieth(source: Source, start: int) -> Number | None:
    """A number of minutes or seconds: 五, 零五, 四十五."""
    if source[start].kind is Kind.DIGIT and source[start].value == 0:
        number = source.integer(start + 1)
        return number if number is not None and number.form is Form.DIGIT else None
    number = source.integer(start)
    return number if number is not None and 0 <= number.value <= 59 else None


def address(source: Source, start: int) -> Match | None:
    """一百九十二點一百六十八點一點一 -> 192.168.1.1."""
    parts: list[Number] = []
    position = start
    while len(parts) < 4:
        part = source.integer(position)
        if part is None or part.form in (Form.PAIR, Form.RANGE) or not _is_octet(part.text):
            return None
        parts.append(part)
        if len(parts) < 4 and source[part.stop].text not in lexicon.POINT:
            return None
        position = part.stop + 1
    stop = parts[-1].stop
    if source[stop].text in lexicon.POINT or _unit(source, stop) is not None:
        return None
    return Match(stop, [Edit(start, stop, ".".join(part.text for part in parts))])


def _is_octet(text: str) -> bool:
    return len(text) <= 3 and text.isdecimal() and int(text) <= 255


def version(source: Source, start: int) -> Match | None:
    """Python三點十二 -> Python3.12, 版本三點十一點四 -> 版本3.11.4."""
    if not _after_letters(source, start) and _before(source, start).text not in lexicon.VERSION:
        return None
    parts: list[Number] = []
    position = start
    while len(parts) < LONGEST_CHAIN:
        part = source.integer(position)
        if part is None or part.form in (Form.PAIR, Form.RANGE):
            break
        parts.append(part)
        if source[part.stop].text not in lexicon.POINT:
            break
        position = part.stop + 1
    if len(parts) < 2 or not any(part.form in (Form.TEN, Form.CARDINAL) for part in parts[1:]):
        return None
    stop = parts[-1].stop
    if source[stop].text == "分":  # a time
        return None
    return Match(stop, [Edit(start, stop, ".".join(part.text for part in parts))])


# -- two numbers and more -------------------------------------------------------------------------------------


def fraction(source: Source, start: int) -> Match | None:
    """三分之二 -> 2/3."""
    below = source.integer(start)
    if below is None or source[below.stop].text != lexicon.OVER:
        return None
    above = source.number(below.stop + 1)
    if above is None:
        return None
    whole = below.text if below.value < 0 else str(below.value)
    edit = Edit(start, above.stop, f"{above.text}/{whole}")
    return Match(above.stop, [edit])


def mixed_fraction(source: Source, start: int) -> Match | None:
    """一又二分之一 -> 1又1/2."""
    whole = source.integer(start)
    if whole is None or source[whole.stop].text != "又":
        return None
    part = fraction(source, whole.stop + 1)
    if part is None:
        return None
    return Match(part.stop, [Edit(start, whole.stop, whole.text), *part.edits])


def ratio(source: Source, start: int) -> Match | None:
    """十七比十六 -> 17:16; a comparison such as 三比二大 stays."""
    number = source.number(start)
    scores: list[list[str]] = [[]]  # one after the other: 六比四七比五
    stop = start
    while number is not None and number.form is not Form.RANGE:
        stop = number.stop
        if source[stop].text != "比":
            scores[-1].append(number.text)
            break
        again = _same_again(source, start, stop, number) if len(scores[-1]) == 1 else None
        if again is not None:
            scores[-1].append(again)
            scores.append([scores[0][0]])
        elif scores[-1] and number.form in (Form.TWO_DIGITS, Form.PAIR):
            scores[-1].append(number.text[0])
            scores.append([number.text[1]])
        else:
            scores[-1].append(number.text)
        number = source.number(stop + 1)
        if number is None:  # 比十五二十一比: the end of one score and the begin of another
            two = _two_scores(source, stop + 1)
            if two is None and source[_numerals_stop(source, stop + 1)].text == "比":
                last = source.number(_numerals_stop(source, stop + 1) + 1)
                return Match(_numerals_stop(source, stop + 1) if last is None else last.stop, [])
            if two is not None:
                scores[-1].append(two[0])
                scores.append([])
                number = two[1]
    if len(scores[0]) < 2 or _compares(source, stop) or source[stop].text in lexicon.AND_MORE:
        return None
    return Match(stop, [Edit(start, stop, " ".join(map(":".join, scores)))])


def _same_again(source: Source, start: int, stop: int, number: Number) -> str | None:
    """The 9 of 十一比九十一比七: sets are won with the same number of points, so that 91 is none."""
    target = source.number(start)
    if target is None or target.form not in (Form.TEN, Form.CARDINAL) or target.value > 30:
        return None
    length = target.stop - start
    first = source.part(stop - length - 1, stop - length) if stop - length > start else None
    if first is None or first.form is not Form.DIGIT or number.form is not Form.CARDINAL:
        return None
    second = source.part(stop - length, stop)
    return first.text if second is not None and second.value == target.value and number.value > 30 else None


def _two_scores(source: Source, start: int) -> tuple[str, Number] | None:
    """Two numbers that were said one after the other, before 比; None when they can be parted in several ways."""
    stop = _numerals_stop(source, start)
    if source[stop].text != "比" or stop - start > 6:
        return None
    found: list[tuple[str, Number]] = []
    for middle in range(start + 1, stop):
        first, second = source.part(start, middle), source.part(middle, stop)
        forms = [number.form for number in (first, second) if number is not None]
        if len(forms) == 2 and not {Form.PAIR, Form.RANGE, Form.TWO_DIGITS, Form.DIGITS} & set(forms):
            assert first is not None
            assert second is not None
            if (
                source[middle].text != "一" or source[middle + 1].text != "十"
            ):  # 一十九 is said after a hundred only
                found.append((first.text, second))
    if len(found) > 1:  # 十九十九: sets end before 99
        found = [(one, other) for one, other in found if _ends_a_set(one) and _ends_a_set(other.text)]
    return found[0] if len(found) == 1 else None


def _ends_a_set(text: str) -> bool:
    return len(text) <= 2 and text.isdecimal() and int(text) <= MOST_IN_A_SET


def _compares(source: Source, position: int) -> bool:
    """三比二大 compares; but 三比二大勝 is a score."""
    if source[position].text not in lexicon.COMPARATIVE_AFTER_RATIO:
        return False
    following = _unit(source, position + 1)
    return following is None or following.family != "score"


def arithmetic(source: Source, start: int) -> Match | None:
    """一加一等於二 -> 1加1等於2; without a result only beside longer numbers: 二十加三 -> 20加3."""
    numbers: list[tuple[int, Number]] = []
    position, result = start, False
    while len(numbers) < LONGEST_CHAIN:
        number = source.number(position)
        if number is None:
            break
        numbers.append((position, number))
        operator = source[number.stop].text
        result = result or (bool(numbers[:-1]) and source[position - 1].text in lexicon.EQUALS)
        if operator not in lexicon.OPERATORS and (result or operator not in lexicon.EQUALS):
            break
        position = number.stop + 1
    sure = result or _counts(source, numbers[-1][1]) if numbers else False
    if len(numbers) < 2 or not (sure or any(number.form is not Form.DIGIT for _, number in numbers)):
        return None
    return Match(numbers[-1][1].stop, [Edit(at, number.stop, number.text) for at, number in numbers])


def equation(source: Source, start: int) -> Match | None:
    """x等於五 -> x等於5."""
    if source[start].text not in lexicon.EQUALS or not _after_letters(source, start):
        return None
    more = arithmetic(source, start + 1)
    if more is not None:
        return more
    number = source.number(start + 1)
    if number is None or number.form is Form.PAIR or (number.is_small and _unit(source, number.stop)):
        return None
    return Match(number.stop, [Edit(start + 1, number.stop, number.text)])


def span(source: Source, start: int) -> Match | None:
    """三到五天 -> 3到5天, 二十到三十歲 -> 20到30歲, 八點到十二點 -> 8點到12點."""
    first = source.number(start)
    if first is None:
        return None
    unit_of_first = source[first.stop] if _unit(source, first.stop) else None
    link = first.stop + (1 if unit_of_first else 0)
    if source[link].text not in lexicon.CONNECTORS:
        return None
    second = source.number(link + 1)
    if second is None or time_of_day(source, link + 1) is not None:  # 九點到十一點三十分
        return None
    if unit_of_first and source[second.stop].text != unit_of_first.text:
        return None
    single = first.form is Form.DIGIT and second.form is Form.DIGIT
    if single and not (_counts(source, second) and not unit_of_first):
        return None
    edits = [Edit(start, first.stop, first.text)]
    if unit_of_first:
        edits += _symbol(source, first.stop)
    edits += [Edit(link + 1, second.stop, second.text), *_symbol(source, second.stop)]
    return Match(second.stop + (1 if _unit(source, second.stop) else 0), edits)


def compound(source: Source, start: int) -> Match | None:
    """Numbers with units of one family: 一小時三十分 -> 1小時30分, 十六巷一號五樓之二 -> 16巷1號5樓之2."""
    links: list[tuple[int, Number]] = []
    position = start
    family = ""
    while len(links) < LONGEST_CHAIN:
        number = source.number(position)
        if number is None or number.form in (Form.PAIR, Form.RANGE):
            break
        this = _family(source, number.stop)
        if not this or (family and this != family):
            break
        links.append((position, number))
        family, position = this, number.stop + 1
    if family == "address" and source[position].text == lexicon.SUB_NUMBER:
        number = source.integer(position + 1)
        if number is not None:
            links.append((position + 1, number))
            position = number.stop
    if len(links) < 2 or (family != "rooms" and all(number.is_small for _, number in links)):
        return None
    edits: list[Edit] = []
    for at, number in links:
        edits += [Edit(at, number.stop, number.text), *_symbol(source, number.stop)]
    tail = _tail(source, links[-1][1]) if position == links[-1][1].stop + 1 else None
    if tail:
        edits.append(Edit(position, tail.stop, tail.text))
        position = tail.stop
    return Match(position, edits)


def with_zero(source: Source, start: int) -> Match | None:
    """一年零三個月 -> 1年3個月, 兩小時零五分 -> 2小時5分: the zero says only that a unit is left out."""
    first = source.integer(start)
    family = _family(source, first.stop) if first is not None else ""
    if first is not None and source[first.stop].text in lexicon.AGE:  # 一歲零兩個月
        family = "years"
    if first is not None and source[first.stop].text in lexicon.SHORTER_THAN_A_YEAR:  # 兩天零三小時
        family = "duration"
    if first is None or family not in ("years", "duration") or source[first.stop].text == "分":
        return None
    zero = first.stop + 1
    if source[zero].kind is not Kind.DIGIT or source[zero].value != 0:
        return None
    second = source.integer(zero + 1)
    if second is None or second.form not in (Form.DIGIT, Form.TEN, Form.CARDINAL):
        return None
    unit = source[second.stop].text
    if _family(source, second.stop) != family and not (
        family == "years" and unit in lexicon.SHORTER_THAN_A_YEAR
    ):
        return None
    return Match(second.stop + 1, [Edit(start, first.stop, first.text), Edit(zero, second.stop, second.text)])


def record(source: Source, start: int) -> Match | None:
    """五勝三負 -> 5勝3負, 三勝二和一負 -> 3勝2和1負, 三局兩勝 -> 3局2勝."""
    edits: list[Edit] = []
    position = start
    for words in (lexicon.FOUGHT, lexicon.WON, lexicon.DRAWN, lexicon.LOST):
        number = source.integer(position)
        if number is None or number.form in (Form.PAIR, Form.RANGE):
            break
        if source[number.stop].text in words:
            edits.append(Edit(position, number.stop, number.text))
            position = number.stop + 1
    if not edits:
        return _shots(source, start)
    return Match(position, edits) if len(edits) > 1 else None


def _shots(source: Source, start: int) -> Match | None:
    """十投六中 -> 10投6中."""
    thrown = source.integer(start)
    if thrown is None or source[thrown.stop].text != lexicon.THROWN:
        return None
    hit = source.integer(thrown.stop + 1)
    if hit is None or source[hit.stop].text != lexicon.HIT:
        return None
    return Match(
        hit.stop + 1, [Edit(start, thrown.stop, thrown.text), Edit(thrown.stop + 1, hit.stop, hit.text)]
    )


def price(source: Source, start: int) -> Match | None:
    """一百五十點五十美元 -> 150.50美元: cents said as a number of their own."""
    whole = source.integer(start)
    if whole is None or whole.form is not Form.CARDINAL or source[whole.stop].text not in lexicon.POINT:
        return None
    cents = source.integer(whole.stop + 1)
    if cents is None or cents.form is not Form.CARDINAL or not 20 <= cents.value <= 99:
        return None
    if not source[cents.stop].text.startswith(lexicon.CURRENCIES):
        return None
    return Match(cents.stop, [Edit(start, cents.stop, f"{whole.text}.{cents.value}")])


def house_number(source: Source, start: int) -> Match | None:
    """五之三號 -> 5之3號."""
    first = source.integer(start)
    if first is None or source[first.stop].text != lexicon.SUB_NUMBER:
        return None
    second = source.integer(first.stop + 1)
    if second is None or _family(source, second.stop) != "address":
        return None
    return Match(
        second.stop, [Edit(start, first.stop, first.text), Edit(first.stop + 1, second.stop, second.text)]
    )


def _family(source: Source, position: int) -> str:
    unit = _unit(source, position)
    if unit is None:
        return ""
    if source[position].text == lexicon.ROOM:  # 三室一廳
        halls = source.integer(position + 1)
        if halls is not None and source[halls.stop].text in lexicon.HALL:
            return "rooms"
    return "address" if source[position].text in lexicon.NUMBER_SIGN else unit.family


def _symbol(source: Source, position: int) -> list[Edit]:
    unit = _unit(source, position)
    return [Edit(position, position + 1, unit.symbol)] if unit and unit.symbol else []


def listing(source: Source, start: int) -> Match | None:
    """三、四、五樓 -> 3、4、5樓."""
    edits: list[Edit] = []
    position, number = start, source.integer(start)
    while number is not None and number.form is Form.DIGIT:
        edits.append(Edit(position, number.stop, number.text))
        if source[number.stop].text != lexicon.LIST_COMMA:
            return Match(number.stop, edits) if len(edits) > 1 and _counts(source, number) else None
        position, before = number.stop + 1, number
        number = source.integer(position)
        if number is None or number.value != before.value + 1:
            break
    return None


def range_with_comma(source: Source, start: int) -> Match | None:
    """七、八十歲 -> 70~80歲, 兩、三萬 -> 2~3萬."""
    first = source.integer(start)
    if first is None or first.form is not Form.DIGIT or source[first.stop].text != lexicon.LIST_COMMA:
        return None
    second = source.integer(first.stop + 1)
    if second is None or second.form is not Form.CARDINAL or first.value == 0:
        return None
    places = second.text[len(first.text) :]
    zeros = places[: len(places) - len(places.lstrip("0"))]
    if second.text != f"{first.value + 1}{places}" or any(char.isdigit() for char in places[len(zeros) :]):
        return None
    return Match(second.stop, [Edit(start, second.stop, f"{first.text}{zeros}~{second.text}")])


def decades(source: Source, start: int) -> Match | None:
    """五零六零年代 -> 50、60年代; but 二零三零年代 is one decade."""
    number = source.integer(start)
    if number is None or source[number.stop].text != lexicon.DECADE or len(number.text) != 4:
        return None
    first, second = number.text[:2], number.text[2:]
    if first < "30" or first[1] != "0" or int(second) != int(first) + 10:
        return None
    return Match(number.stop + 1, [Edit(start, number.stop, f"{first}、{second}")])


# -- one number -----------------------------------------------------------------------------------------------


def single_number(source: Source, start: int) -> Match | None:
    """Everything else: 三百二十, 零九一二三四五六七八, 二十五千克 -> 25kg, 三四十個 -> 30~40個, iPhone四."""
    number = source.number(start)
    if number is not None and number.form is Form.DECIMAL and _goes_on(source, start, number.stop):
        return Match(number.stop, [])
    if number is not None and number.form is Form.DECIMAL and not _is_decimal(source, start, number):
        number = source.integer(start)
    if number is None:
        return None
    if number.form is Form.RANGE and _is_plan(source, start, number):
        return Match(number.stop, [])
    tail = _tail(source, number)
    text = number.text if tail and number.is_small else _written_form(source, start, number)
    if text is None:
        return Match(number.stop, [])
    edits = [Edit(start, number.stop, text), *_symbol(source, number.stop)]
    stop = number.stop + (1 if _unit(source, number.stop) else 0)
    if tail:
        edits.append(Edit(stop, tail.stop, tail.text))
        stop = tail.stop
    return Match(stop, edits)


def _is_plan(source: Source, start: int, number: Number) -> bool:
    """十三五 and 十四五 are five-year plans, but 十四五歲."""
    said = source[start].text, source[number.stop - 1].value, number.stop - start
    more = source[number.stop].text in lexicon.AND_MORE | lexicon.AND_SOME
    counted = _unit(source, number.stop) is not None and source[number.stop].text not in lexicon.ROUND
    return said == ("十", 5, 3) and not counted and not more


def _goes_on(source: Source, start: int, stop: int) -> bool:
    """What stands before or behind is written already: 10點零點一, 三點五點10."""
    before = _before(source, start).text in lexicon.POINT and _before(source, start - 1).kind is Kind.ARABIC
    return before or (source[stop].text in lexicon.POINT and source[stop + 1].kind is Kind.ARABIC)


def _tail(source: Source, number: Number) -> Number | None:
    """The decimal digits said after the unit: 三十七度五, 九秒五八."""
    unit = source[number.stop].text
    if unit not in lexicon.TAIL_UNITS or (number.is_small and unit in lexicon.NO_TAIL_OF_ONE):
        return None
    tail = source.integer(number.stop + 1)
    if tail is None or tail.form not in (Form.DIGIT, Form.TWO_DIGITS, Form.PAIR):
        return None
    return None if _unit(source, tail.stop) else tail


def _is_decimal(source: Source, start: int, number: Number) -> bool:
    """Not in 下午三點一個人, 十點一刻, and 快一點三個人."""
    before = _before(source, start)
    if before.text in lexicon.TIMES_OF_DAY or source[number.stop].text == lexicon.QUARTER:
        return False
    if source[start].text != "一" or before.text not in lexicon.COMPARATIVE_BEFORE_A_BIT:
        return True
    # 身高一點七五公尺, 減少一點八億元; but 快一點三個人
    if not number.text[-1].isdigit():
        return True
    unit = _unit(source, number.stop)
    if unit is not None:
        return unit.family in lexicon.MEASURED or source[number.stop].text in lexicon.MEASURES
    return len(number.text.partition(".")[2]) > 1 and source[number.stop].text not in lexicon.POINT


def _written_form(source: Source, start: int, number: Number) -> str | None:
    """``number`` in Arabic digits; None when it is not surely a number and stays."""
    named = _after_letters(source, start) or _before(source, start).text in lexicon.LABELS
    following = source[number.stop]
    if number.form is Form.DIGITS and _is_listing(source, number):
        return None
    if following.text == lexicon.REIGN:  # 約翰二十三世
        return None
    if number.form is Form.TWO_DIGITS and number.text[0] == "0" and _lasts(source, number.stop):  # 半年零三天
        return None
    if following.text == lexicon.GOOD and source[number.stop + 1].text in lexicon.APPROXIMATE:  # 三十好幾
        return None
    if number.form in (Form.DIGITS, Form.CARDINAL, Form.RANGE, Form.DECIMAL):
        return number.text
    if number.form is Form.DIGIT:
        return number.text if _digit_counts(source, start, number, named) else None
    if number.form is Form.TEN:
        if following.text in lexicon.HOUR_WORD and _says_when(source, start):  # 上午十時
            return number.text
        counts = following.kind is Kind.UNIT and following.text not in lexicon.NOT_AFTER_TEN
        return number.text if named or counts or following.text in lexicon.AND_MORE else None
    if number.form is Form.PAIR and following.kind is Kind.UNIT and not _after_letters(source, start):
        in_school = following.text == lexicon.CLASS and _before(source, start).text[-1:] in lexicon.SCHOOLS
        return None if source[start + 1].text in lexicon.TWO_OF or in_school else number.approximate  # 一兩個
    if named or following.kind is Kind.LETTERS:
        return number.text
    if number.form is Form.PAIR:
        return None
    if number.text == "00":  # 零零後, but 孤零零
        born = following.text in lexicon.LAST and _before(source, start).text not in lexicon.LONELY
        return number.text if born else None
    return number.text if "0" in number.text or following.text in lexicon.AFTER_TWO_DIGITS else None


def _lasts(source: Source, position: int) -> bool:
    return (
        _family(source, position) in ("years", "duration")
        or source[position].text in lexicon.SHORTER_THAN_A_YEAR
    )


def _says_when(source: Source, start: int) -> bool:
    before = _before(source, start)
    return before.text in lexicon.TIMES_OF_DAY or before.text in lexicon.DAY


def _is_listing(source: Source, number: Number) -> bool:
    """一二三樓, 四五六月, and 一二三等獎 name three things."""
    following = source[number.stop]
    listed = following.kind is Kind.UNIT and following.text not in lexicon.NUMBER_SIGN
    listed = listed or following.text.startswith(lexicon.GRADE)
    return listed and len(number.text) == 3 and number.text in "123456789"


def _digit_counts(source: Source, start: int, number: Number, named: bool) -> bool:
    """Whether a single digit is a number here."""
    following = source[number.stop]
    if following.text in lexicon.KILO_AFTER_DIGIT:
        return True
    if source[start].text in lexicon.TWO_OF:
        return False
    if following.kind is Kind.LETTERS:
        return number.value != 1 or len(following.text) <= 2
    if following.text in lexicon.CODE and _before(source, start).text in lexicon.LAST:
        return False
    if named and number.value != 1:
        return True
    if named:
        return _one_is_a_name(_before(source, start), following)
    if number.value == 0:
        return following.text in lexicon.ZERO_UNITS
    if number.value == 1:
        return _before(source, start).text in lexicon.ROADS and following.text in lexicon.NUMBER_SIGN
    return _counts(source, number)


def _one_is_a_name(before: Token, following: Token) -> bool:
    """一 is a name in B一停車場 and 請按一, but not in 這個APP一打開."""
    if following.text.startswith(before.text):  # 轉一轉
        return False
    if before.text in lexicon.KEYS or (before.kind is Kind.LETTERS and len(before.text) == 1):
        return following.text not in lexicon.THINGS
    return following.kind not in (Kind.TEXT, Kind.UNIT) or not following.text[0].isalpha()


RULES: tuple[Rule, ...] = (
    leave_alone,
    percentage,
    negative,
    ordinal,
    with_zero,
    date,
    address,
    version,
    price,
    time_of_day,
    mixed_fraction,
    fraction,
    ratio,
    arithmetic,
    equation,
    span,
    record,
    compound,
    house_number,
    listing,
    range_with_comma,
    decades,
    single_number,
)
