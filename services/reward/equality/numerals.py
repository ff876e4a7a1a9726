"""Numbers in words, English and Chinese, as digits: `forty-two`, `one half`, `三百零五`, `二分之一`, `1.2万`."""

from __future__ import annotations

import re

_UNITS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen"
    " eighteen nineteen"
).split()
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
_VALUES = {word: value for value, word in enumerate(_UNITS)} | {word: 20 + 10 * i for i, word in enumerate(_TENS)}
_SCALES = {"hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_PARTS = {"half": 2, "halves": 2, "third": 3, "thirds": 3, "quarter": 4, "quarters": 4, "fourth": 4, "fourths": 4}
_PARTS |= {"fifth": 5, "fifths": 5, "sixth": 6, "sixths": 6, "eighth": 8, "eighths": 8, "tenth": 10, "tenths": 10}
_ORDINALS = dict(
    zip(
        "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth".split(),
        _UNITS[1:],
        strict=False,
    )
) | {f"{word}th": word for word in (*_UNITS[13:], *_SCALES)}
_ORDINALS |= {word.removesuffix("y") + "ieth": word for word in _TENS}
_NUMBERED = re.compile(
    r"(?:the )?((?:[a-z]+[ -])?[a-z]*(?:first|second|third|th)) (term|number|place|position|day|digit|row|column|floor"
    r"|week|month|year|person|student|one|step|page|time|power)"
)
_SCALED = re.compile(
    r"(?<![\d,])(\d[\d,]*(?:\.\d+)?)\s*(?:\\text\{\s*)?(thousand|million|billion|trillion)\b\s*\}?", re.IGNORECASE
)

_DIGITS = {character: value for value, character in enumerate("零一二三四五六七八九")}
_DIGITS |= {"〇": 0, "两": 2, "壹": 1, "贰": 2, "叁": 3, "肆": 4, "伍": 5, "陆": 6, "柒": 7, "捌": 8, "玖": 9}
_STEPS = {"十": 10, "拾": 10, "百": 100, "佰": 100, "千": 1000, "仟": 1000}
_MYRIADS = {"万": 10**4, "萬": 10**4, "亿": 10**8, "億": 10**8}
_NUMERAL = "[" + "".join((*_DIGITS, *_STEPS, *_MYRIADS)) + "]{1,30}"
_STANDING = _NUMERAL.replace("千", "").removesuffix("{1,30}")
# Not the numerals in 三角形, 第一象限 and 星期三.
_WHOLE = re.compile(
    rf"(负?)(?<![\d期周])((?:{_STANDING}|千(?![米克瓦焦])){{1,30}})(?!角[形函]|边形|象限|次函数|面体|棱)"
    rf"(?:点([{''.join(_DIGITS)}]+))?"
)
_SHARE = re.compile(rf"(负?)({_NUMERAL}|(?<!\d)\d+)分之({_NUMERAL}|\d+(?:\.\d+)?)")
_MIXED_MYRIAD = re.compile(r"(?<![\d.])(\d+(?:\.\d+)?)\s*([万萬亿億])")
MAX_CHARS = 60


def english_number(text: str) -> str | None:
    """Digits for a whole text that is a number in English words; None if it is not."""
    words = re.findall(r"[a-z]+", text.lower()) if len(text) <= MAX_CHARS else []
    if len(words) > 1 and words[0] in ("a", "an") and words[-1] in _PARTS:
        words[0] = "one"  # `a third`
    words = words[words[:1] == ["the"] :]
    if words and words[-1] in _ORDINALS and (len(words) == 1 or _cardinal(words[:-1]) is None or words[-2] in _TENS):
        words[-1] = _ORDINALS[words[-1]]
    if not words or not re.fullmatch(r"[a-zA-Z\s-]+", text.strip()):
        return None
    negative = words[0] in ("minus", "negative")
    words = [word for word in words[negative:] if word not in ("and", "a")] or ["?"]
    denominator = _PARTS.get(words[-1])
    if denominator and len(words) > 1:
        numerator = _cardinal(words[:-1])
        return None if numerator is None else f"{'-' * negative}{numerator}/{denominator}"
    if words == ["half"]:
        return "1/2"
    value = _cardinal(words)
    return None if value is None else f"{'-' * negative}{value}"


def numbered(text: str) -> str | None:
    """`the fifth term` as `5 term`; None for other text."""
    match = _NUMBERED.fullmatch(text)
    number = english_number(match[1]) if match else None
    return f"{number} {match[2]}" if match and number else None


def _cardinal(words: list[str]) -> int | None:
    total, current = 0, 0
    for position, word in enumerate(words):
        if word in _VALUES:
            if current % 100 and not (current % 100 >= 20 and current % 10 == 0 and _VALUES[word] < 10):
                return None  # `three four` is no number
            current += _VALUES[word]
        elif word in _SCALES and (position or words[0] in _SCALES):
            current = max(current, 1) * _SCALES[word]
            if word != "hundred":
                total, current = total + current, 0
        else:
            return None
    return total + current


def expand_scales(text: str) -> str:
    """`2.5 million` as a product."""
    return _SCALED.sub(lambda match: _times(match[1].replace(",", ""), _SCALES[match[2].lower()]), text)


def expand_chinese(text: str) -> str:
    """Chinese numerals in a text as digits, fractions and percentages as such."""
    text = text.replace("一半", "1/2")
    text = _MIXED_MYRIAD.sub(lambda match: _times(match[1], _MYRIADS[match[2]]), text)
    text = _SHARE.sub(_share, text)
    text = re.sub(r"负(?=\d)", "-", text)
    return _WHOLE.sub(_whole, text)


def _share(match: re.Match[str]) -> str:
    sign, denominator, numerator = "-" * bool(match[1]), _chinese(match[2]), _chinese(match[3])
    if denominator is None or numerator is None:
        return match[0]
    return f"{sign}{numerator}%" if denominator == "100" else f"{sign}{numerator}/{denominator}"


def _whole(match: re.Match[str]) -> str:
    value = _chinese(match[2])
    if value is None:
        return match[0]
    decimals = "".join(str(_DIGITS[digit]) for digit in match[3]) if match[3] else ""
    return "-" * bool(match[1]) + value + ("." + decimals if decimals else "")


def _chinese(text: str) -> str | None:
    if text[0].isdigit() and text.isascii():
        return text
    if len(text) > 1 and all(character in _DIGITS for character in text):
        return "".join(str(_DIGITS[character]) for character in text)  # read out digit by digit: 二〇二四
    total, section, digit = 0, 0, None
    for character in text:
        if character in _DIGITS:
            if digit:
                return None
            digit = _DIGITS[character]
        elif character in _STEPS:
            section += (1 if digit is None else digit) * _STEPS[character]
            digit = None
        else:
            total = (total + section + (digit or 0)) * _MYRIADS[character]
            section, digit = 0, None
    return str(total + section + (digit or 0))


def _times(number: str, scale: int) -> str:
    whole, _, decimals = number.partition(".")
    value = int(whole + decimals) * scale
    power = 10 ** len(decimals)
    digits = str(value).rjust(len(decimals) + 1, "0")
    return str(value // power) if value % power == 0 else f"{digits[: -len(decimals)]}.{digits[-len(decimals) :]}"
