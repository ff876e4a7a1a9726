"""Dates and times of day."""

from __future__ import annotations

import re

_MONTHS = "january february march april may june july august september october november december".split()
_MONTH = r"(?P<month>" + "|".join(f"{name[:3]}(?:{name[3:]})?" for name in _MONTHS) + "|sept" + r")\.?"
_DAY = r"(?P<day>\d{1,2})(?:st|nd|rd|th)?"
_DATES = [
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        rf"{_MONTH}\s+{_DAY}(?:\s*,?\s*(?P<year>\d{{4}}))?",
        rf"{_DAY}\s+(?:of\s+)?{_MONTH}(?:\s*,?\s*(?P<year>\d{{4}}))?",
        r"(?P<year>\d{4})-(?P<number>\d{1,2})-(?P<day>\d{1,2})",
        r"(?P<year>\d{4})/(?P<number>\d{1,2})/(?P<day>\d{1,2})",
        r"(?P<number>0?[1-9]|1[0-2])/(?P<day>\d{1,2})/(?P<year>\d{4})",
        r"(?P<year>\d{4})年(?P<number>\d{1,2})月(?P<day>\d{1,2})日?",
        r"(?P<number>\d{1,2})月(?P<day>\d{1,2})日",
    )
]
_TIME = re.compile(
    r"(\d{1,2}):(\d{2})(?::(\d{2}))?\s*(?:([ap])\.?\s?m\.?)?|(\d{1,2})\s*([ap])\.?\s?m\.?", re.IGNORECASE
)
_CHINESE_TIME = re.compile(r"(上午|早上|凌晨|下午|晚上)?(\d{1,2})[点时](?:(\d{1,2})分|(半)|整)?")
_WORDS = "one two three four five six seven eight nine ten eleven twelve".split()
_HOURS = {word: hour for hour, word in enumerate(_WORDS, 1)}
_MINUTES = {"half": 30, "quarter": 15, "five": 5, "ten": 10, "twenty": 20, "twenty-five": 25, "twenty five": 25}
_SPOKEN = re.compile(
    rf"(?:a )?({'|'.join(_MINUTES)}|\d{{1,2}})(?: minutes?)? (past|after|to|before|till) ({'|'.join(_WORDS)}|\d{{1,2}})"
    r"(?: o'clock)?(?: ([ap])\.?\s?m\.?)?"
)
_NAMED = {"noon": (12, 0, 0, "p"), "midnight": (0, 0, 0, "a")}


def read_date(text: str) -> tuple[int | None, int, int] | None:
    """(year or None, month, day) of a whole text that is a date."""
    text = _plain(text)
    for pattern in _DATES:
        if match := pattern.fullmatch(text):
            parts = match.groupdict()
            month = int(parts["number"]) if parts.get("number") else _month(parts["month"])
            return int(parts["year"]) if parts.get("year") else None, month, int(parts["day"])
    return None


def read_time(text: str) -> tuple[int, int, int, bool] | None:
    """(hour, minute, second, whether the half of the day is certain) of a whole text that is a time of day."""
    text = _plain(text).lower()
    if text in _NAMED:
        return (*_NAMED[text][:3], True)
    if chinese := _CHINESE_TIME.fullmatch(text):
        half = "p" if chinese[1] in ("下午", "晚上") else "a" if chinese[1] else ""
        text = f"{chinese[2]}:{30 if chinese[4] else int(chinese[3] or 0):02}{half and half + 'm'}"
    if spoken := _SPOKEN.fullmatch(text):
        text = _written(*spoken.groups())
    if text.endswith(" o'clock"):
        hour_word = text.removesuffix(" o'clock")
        text = f"{_HOURS.get(hour_word, hour_word)}:00"
    text = re.sub(r"(?<=:00) noon$", " pm", re.sub(r"(?<=:00) midnight$", " am", text))
    match = _TIME.fullmatch(text)
    if not match:
        return None
    hour, half = int(match[1] or match[5]), (match[4] or match[6] or "").lower()
    minute, second = int(match[2] or 0), int(match[3] or 0)
    if hour > 24 or minute > 59 or second > 59:
        return None
    if half:
        hour = hour % 12 + 12 * (half == "p")
    return hour, minute, second, bool(half) or hour > 12


def _written(minutes: str, side: str, hour: str, half: str | None) -> str:
    """`quarter to five` as 4:45."""
    total = 60 * int(_HOURS.get(hour, hour)) + (1 if side in ("past", "after") else -1) * int(
        _MINUTES.get(minutes, minutes)
    )
    return f"{(total // 60 - 1) % 12 + 1}:{total % 60:02}{f'{half}m' if half else ''}"


def _month(name: str) -> int:
    return next(index for index, month in enumerate(_MONTHS, 1) if month.startswith(name.lower()[:3]))


def _plain(text: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"\\text\{([^{}]*)\}", r" \1 ", text)).strip()
