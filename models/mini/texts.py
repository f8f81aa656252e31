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
ENGLISH_WORDS = (*ENGLISH_DIGITS, "oh")


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
