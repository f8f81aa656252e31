"""Random texts of the kinds the mini model understands, each with the pauses a speaker would make.

A :class:`Text` has two forms: ``written`` is what the model must answer (Simplified Chinese numerals, English words,
no punctuation), ``spoken`` is what the synthesizer reads (the same words, with commas where a speaker pauses).
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Callable

DIGITS = "零一二三四五六七八九"
ENGLISH_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
CHINESE_CHARACTERS = DIGITS + "幺两十百千万亿点负分之年月日号上下午半整元块毛角钱星期民国我的电话是机码"
_TEENS = "ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen".split()
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
_MONTHS = "January February March April May June July August September October November December".split()
_ORDINALS = (
    "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth fifteenth "
    "sixteenth seventeenth eighteenth nineteenth twentieth"
).split()
_CURRENCIES = (("dollar", "dollars"), ("euro", "euros"), ("pound", "pounds"))
ENGLISH_NUMERALS = (*ENGLISH_DIGITS, "oh", *_TEENS, *_TENS, "hundred", "thousand", "million")
ENGLISH_WORDS = (
    *(*ENGLISH_NUMERALS, "and", "point", "minus", "percent", *_MONTHS, *_ORDINALS, "thirtieth", "of", "the"),
    *("o'clock", "half", "quarter", "past", "to", "a", "p", "m"),
    *(*(word for pair in _CURRENCIES for word in pair), "cent", "cents"),
)


@dataclass(frozen=True)
class Text:
    """What is said and how it is written; ``language`` is ``"Chinese"`` or ``"English"``."""

    language: str
    written: str
    spoken: str


def cardinal(value: int, rng: random.Random) -> str:
    """Mandarin reading of ``0 <= value < 10**12``; 2 before 百千万亿 is read 两 as often as speakers do."""
    if value == 0:
        return "零"
    groups: list[tuple[int, str]] = []
    for unit in ("", "万", "亿"):
        value, group = divmod(value, 10_000)
        groups.append((group, unit))
    words = ""
    pending_zero = False
    for group, unit in reversed(groups):
        if group == 0:
            pending_zero = bool(words)
            continue
        if words and (pending_zero or group < 1000):
            words += "零"
        words += _below_ten_thousand(group, bool(unit), rng) + unit
        pending_zero = False
    # 10..19 at the very beginning is read 十, not 一十.
    return words[1:] if words.startswith("一十") else words


def _below_ten_thousand(value: int, before_unit: bool, rng: random.Random) -> str:
    if value == 2 and before_unit:
        return "两"
    words = ""
    zero = False
    for scale, unit in ((1000, "千"), (100, "百"), (10, "十"), (1, "")):
        digit, value = divmod(value, scale)
        if digit == 0:
            zero = bool(words)
            continue
        if zero:
            words += "零"
            zero = False
        is_liang = digit == 2 and (unit == "千" or (unit == "百" and rng.random() < 0.5))
        words += ("两" if is_liang else DIGITS[digit]) + unit
    return words


def _magnitude(rng: random.Random, largest_exponent: float) -> int:
    """Integers whose number of digits is uniform, half of them round, as the numbers people say are."""
    value = int(10 ** rng.uniform(0, largest_exponent))
    if value > 100 and rng.random() < 0.5:
        keep = rng.randint(1, 3)
        scale = 10 ** max(0, len(str(value)) - keep)
        value = value // scale * scale
    return value


def _digits(rng: random.Random, count: int) -> str:
    if rng.random() < 0.15:  # repeated digits are where recognizers slip
        palette = rng.sample(DIGITS, 2)
        return "".join(rng.choice(palette) for _ in range(count))
    return "".join(rng.choice(DIGITS) for _ in range(count))


def _with_pauses(units: list[str], rng: random.Random, joiner: str, pause: str) -> str:
    """Read ``units`` one after the other, often in groups of two to four as telephone numbers are."""
    if len(units) < 4 or rng.random() < 0.5:
        return joiner.join(units)
    groups = []
    position = 0
    while position < len(units):
        size = rng.randint(2, 4)
        groups.append(joiner.join(units[position : position + size]))
        position += size
    return pause.join(groups)


def _chinese(written: str, spoken: str | None = None) -> Text:
    return Text("Chinese", written, spoken or written)


def digits(rng: random.Random, count: int) -> Text:
    """``count`` Mandarin digits."""
    return _chinese(_digits(rng, count))


def digit_string(rng: random.Random) -> Text:
    kind = rng.random()
    if kind < 0.3:
        digits = "零九" + _digits(rng, 8)
    elif kind < 0.45:
        digits = "零" + rng.choice(DIGITS[2:9]) + _digits(rng, rng.choice((7, 8)))
    else:
        digits = _digits(rng, rng.randint(1, 12))
    if rng.random() < 0.2:
        digits = digits.replace("一", "幺")
    spoken = _with_pauses(list(digits), rng, "", "，")
    carrier = rng.random()
    if carrier < 0.04:
        prefix = rng.choice(("我的电话是", "电话", "号码是", "电话号码是"))
        return _chinese(prefix + digits, prefix + spoken)
    if carrier < 0.07:
        extension = _digits(rng, rng.randint(2, 4))
        return _chinese(digits + "分机" + extension, spoken + "，分机" + extension)
    return _chinese(digits, spoken)


def decimal(rng: random.Random, largest_exponent: float) -> str:
    return cardinal(_magnitude(rng, largest_exponent), rng) + "点" + _digits(rng, rng.randint(1, 4))


def number(rng: random.Random) -> Text:
    text = decimal(rng, 5) if rng.random() < 0.35 else cardinal(_magnitude(rng, 9.5), rng)
    return _chinese("负" + text if rng.random() < 0.08 else text)


def percentage(rng: random.Random) -> Text:
    value = decimal(rng, 2.2) if rng.random() < 0.5 else cardinal(rng.randint(0, 120), rng)
    return _chinese("百分之" + value)


def date(rng: random.Random) -> Text:
    month = cardinal(rng.randint(1, 12), rng) + "月"
    day = cardinal(rng.randint(1, 31), rng) + rng.choice("日日号")
    kind = rng.random()
    if kind < 0.55:
        year = "".join(DIGITS[int(c)] for c in str(rng.randint(1900, 2050))) + "年"
    elif kind < 0.75:
        year = "民国" + cardinal(rng.randint(1, 130), rng) + "年"
    else:
        year = ""
    if year and rng.random() < 0.1:
        return _chinese(year)
    pause = "，" if year and rng.random() < 0.3 else ""
    return _chinese(year + month + day, year + pause + month + day)


def weekday(rng: random.Random) -> Text:
    return _chinese("星期" + rng.choice("一二三四五六日"))


def time_of_day(rng: random.Random) -> Text:
    half_day = rng.choice(("", "", "上午", "下午"))
    hour = rng.randint(1, 12) if half_day else rng.randint(0, 23)
    hour_text = "两" if hour == 2 else cardinal(hour, rng)
    minute = rng.randint(1, 59)
    kind = rng.random()
    if kind < 0.1:
        tail = ""
    elif kind < 0.2:
        tail = "半"
    elif kind < 0.25:
        tail = "整"
    else:
        tail = ("零" if minute < 10 else "") + cardinal(minute, rng) + "分"
    return _chinese(half_day + hour_text + "点" + tail)


def money(rng: random.Random) -> Text:
    kind = rng.random()
    if kind < 0.6:
        amount = cardinal(_magnitude(rng, 8.5), rng)
        return _chinese(amount + rng.choice(("元", "元", "块", "块钱")))
    whole = cardinal(rng.randint(1, 999), rng)
    if kind < 0.75:
        return _chinese(whole + "点" + _digits(rng, rng.randint(1, 2)) + "元")
    digit = rng.choice(DIGITS[1:])
    if kind < 0.88:
        cents = rng.choice(DIGITS[1:]) + "分" if rng.random() < 0.4 else ""
        return _chinese(whole + "元" + digit + "角" + cents)
    return _chinese(whole + "块" + digit + rng.choice(("", "毛", "毛钱")))


def english_digits(rng: random.Random) -> Text:
    words = [rng.choice(ENGLISH_DIGITS) for _ in range(rng.randint(1, 10))]
    if rng.random() < 0.15:
        words = [rng.choice(words[:2]) for _ in words]
    if rng.random() < 0.25:
        words = ["oh" if word == "zero" else word for word in words]
    return Text("English", " ".join(words), _with_pauses(words, rng, " ", ", "))


def digits_one_by_one(rng: random.Random) -> Text:
    """One to eight Mandarin or English digits, each said for itself as in a list."""
    count = rng.choice((1, 1, 1, *range(2, 9)))
    if rng.random() < 0.6:
        said = _digits(rng, count)
        return _chinese(said, "，".join(said) + rng.choice(("", "。")))
    words = [rng.choice(ENGLISH_DIGITS) for _ in range(count)]
    return Text("English", " ".join(words), ", ".join(words) + rng.choice(("", ".")))


def english_cardinal(value: int, rng: random.Random) -> str:
    """English reading of ``0 <= value < 10**9``; "and" before tens and ones as some speakers have it."""
    if value == 0:
        return "zero"
    conjunction = rng.random() < 0.4
    words: list[str] = []
    for scale, unit in ((1_000_000, "million"), (1000, "thousand"), (1, "")):
        group, value = divmod(value, scale)
        if not group:
            continue
        hundreds, rest = divmod(group, 100)
        if hundreds:
            words += [ENGLISH_DIGITS[hundreds], "hundred"]
        if rest and conjunction and (hundreds or (words and scale == 1)):
            words.append("and")
        words += [*_below_hundred(rest), unit] if unit else _below_hundred(rest)
    return " ".join(words)


def _below_hundred(value: int) -> list[str]:
    if value < 10:
        return [ENGLISH_DIGITS[value]] if value else []
    if value < 20:
        return [_TEENS[value - 10]]
    return [_TENS[value // 10 - 2], *([ENGLISH_DIGITS[value % 10]] if value % 10 else [])]


def _english(written: str, spoken: str | None = None) -> Text:
    return Text("English", written, spoken or written)


def english_number(rng: random.Random) -> Text:
    text = english_cardinal(_magnitude(rng, 6.5 if rng.random() < 0.3 else 3.5), rng)
    if rng.random() < 0.25:
        text += " point " + " ".join(rng.choice(ENGLISH_DIGITS) for _ in range(rng.randint(1, 3)))
    if rng.random() < 0.2:
        text += " percent"
    return _english("minus " + text if rng.random() < 0.08 else text)


def english_date(rng: random.Random) -> Text:
    month, day = rng.choice(_MONTHS), rng.randint(1, 31)
    if day <= 20:
        ordinal = _ORDINALS[day - 1]
    else:
        ordinal = "thirtieth" if day == 30 else f"{_TENS[day // 10 - 2]} {_ORDINALS[day % 10 - 1]}"
    kind = rng.random()
    if kind < 0.4:
        text = f"{month} {ordinal}"
    elif kind < 0.7:
        text = f"the {ordinal} of {month}"
    else:
        text = f"{month} {' '.join(_below_hundred(day))}"
    if rng.random() < 0.5:
        return _english(text)
    year = rng.randint(1900, 2050)
    century, rest = divmod(year, 100)
    if 2000 <= year < 2010:
        said = "two thousand" + (f" and {ENGLISH_DIGITS[rest]}" if rest else "")
    elif rest == 0:
        said = " ".join([*_below_hundred(century), "hundred"])
    else:
        said = " ".join([*_below_hundred(century), *(["oh"] if rest < 10 else []), *_below_hundred(rest)])
    return _english(f"{text} {said}", f"{text}, {said}" if rng.random() < 0.5 else None)


def english_time(rng: random.Random) -> Text:
    hour, minute = _below_hundred(rng.randint(1, 12))[0], rng.randint(1, 59)
    kind = rng.random()
    if kind < 0.15:
        text = f"{hour} o'clock"
    elif kind < 0.35:
        text = rng.choice(("half past", "quarter past", "quarter to")) + " " + hour
    else:
        text = " ".join([hour, *(["oh"] if minute < 10 else []), *_below_hundred(minute)])
    if rng.random() < 0.35 and kind >= 0.35:
        text += rng.choice((" a m", " p m"))
    return _english(text)


def english_money(rng: random.Random) -> Text:
    one, many = rng.choice(_CURRENCIES)
    amount = _magnitude(rng, 5)
    text = english_cardinal(amount, rng) + " " + (one if amount == 1 else many)
    if rng.random() < 0.35:
        cents = rng.randint(1, 99)
        conjunction = "and " if rng.random() < 0.6 else ""
        text += f" {conjunction}{' '.join(_below_hundred(cents))} {'cent' if cents == 1 else 'cents'}"
    return _english(text)


# What else training hears: not in the test set, whose clips must stay the same from one model to the next.
ENGLISH_KINDS: dict[str, tuple[Callable[[random.Random], Text], float]] = {
    "english number": (english_number, 0.4),
    "english date": (english_date, 0.2),
    "english time": (english_time, 0.2),
    "english money": (english_money, 0.2),
}


def english_text(rng: random.Random) -> Text:
    """Draw an English cardinal, date, time or amount of money."""
    kind = rng.choices(list(ENGLISH_KINDS), [share for _, share in ENGLISH_KINDS.values()])[0]
    return ENGLISH_KINDS[kind][0](rng)


# Relative frequency of each kind of text in the training set and in the test set.
KINDS: dict[str, tuple[Callable[[random.Random], Text], float]] = {
    "digits": (digit_string, 0.34),
    "number": (number, 0.16),
    "percentage": (percentage, 0.06),
    "date": (date, 0.09),
    "weekday": (weekday, 0.02),
    "time": (time_of_day, 0.08),
    "money": (money, 0.09),
    "english": (english_digits, 0.21),
}
LONGEST_SPOKEN = 26  # characters or words; keeps a clip under 12 s


def random_text(rng: random.Random) -> tuple[str, Text]:
    """Draw a kind and a text of it."""
    names = list(KINDS)
    while True:
        kind = rng.choices(names, [KINDS[name][1] for name in names])[0]
        text = KINDS[kind][0](rng)
        if len(text.written) <= LONGEST_SPOKEN or kind == "english":
            return kind, text
