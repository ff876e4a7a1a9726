"""Units behind a value, and which convert into which."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

# dimension -> unit -> how many of the dimension's base unit it is
_TABLE: dict[str, dict[str, str]] = {
    "ratio": {"%": "1/100"},
    "length": {
        "m meter metre": "1", "km kilometer kilometre": "1000", "cm centimeter centimetre": "1/100",
        "mm millimeter millimetre": "1/1000", "in inch inches": "0.0254", "ft foot feet": "0.3048", "yd yard": "0.9144",
        "mi mile": "1609.344", "nm nanometer": "1/1000000000",
    },
    "mass": {
        "kg kilogram": "1", "g gram": "1/1000", "mg milligram": "1/1000000", "t ton tonne": "1000",
        "lb lbs pound": "0.45359237", "oz ounce": "0.028349523125",
    },
    "time": {
        "s sec second": "1", "ms millisecond": "1/1000", "min minute": "60", "h hr hour": "3600", "day": "86400",
        "week": "604800",
    },
    "volume": {
        "l liter litre": "1/1000", "ml milliliter millilitre": "1/1000000", "cc": "1/1000000",
        "gal gallon": "0.003785411784",
    },
    "speed": {"m/s mps": "1", "km/h kmh kph": "5/18", "mph": "0.44704", "ft/s": "0.3048", "cm/s": "1/100"},
    "energy": {"j joule": "1", "kj kilojoule": "1000", "cal calorie": "4.184", "kcal": "4184", "ev": "1.602176634e-19"},
    "force": {"n newton": "1", "kn kilonewton": "1000"},
    "power": {"w watt": "1", "kw kilowatt": "1000"},
    "dollar": {"$ dollar usd": "1", "cent ¢": "1/100"},
    "euro": {"€ euro eur": "1"},
    "british pound": {"£ gbp": "1"},
    "rupee": {"₹ rs rupee inr": "1"},
    "yuan": {"¥ yuan rmb 元": "1"},
    "angle": {"rad radian": "1", "^\\circ degree deg": "1/180"},  # degrees: times pi
}  # fmt: skip


@dataclass(frozen=True)
class Unit:
    dimension: str
    factor: Fraction
    times_pi: bool = False


_UNITS = {
    name: Unit(dimension, Fraction(factor), times_pi=dimension == "angle" and factor != "1")
    for dimension, units in _TABLE.items()
    for names, factor in units.items()
    for name in names.split()
}
# Words behind a number that change its meaning, and so are no unit.
_NO_UNITS = {
    "or",
    "and",
    "less",
    "more",
    "at",
    "least",
    "most",
    "not",
    "than",
    "about",
    "approximately",
    "mod",
    "times",
}
_NO_UNITS |= {"to", "over", "under", "plus", "minus"}

_CURRENCY = re.compile(r"^(-?)(?:\\)?([$€£¥₹])\s*(.+)$")
_TEXT = re.compile(r"^(.*?[\w)}\]!])\s*\\text\{\s*([^{}]+?)\s*\}\s*(?:\^\{?([23])\}?)?$")
_SHORT = re.compile(r"^(.*?[\d)}\]!])\s*(%|\^\\circ|°|€|£|¢|元)$")
_PLAIN = re.compile(r"^(.*?[\d)}\]!])( ?)([a-zA-Z]+(?:/[a-z]+)?(?: [a-zA-Z]+){0,2})(?:\^\{?([23])\}?)?$")
_SQUARE = re.compile(r"^(?:square|sq\.?)\s+(.+)$|^(?:cubic|cu\.?)\s+(.+)$")


def split_unit(text: str) -> tuple[str, Unit | None]:
    """The value before a unit, and the unit; the text as it is and None if there is none.

    A word that is no known unit (`5 apples`) is a unit of its own that converts to no other.
    """
    if match := _CURRENCY.match(text):
        return match[1] + match[3], _UNITS[match[2]]
    if (match := _SHORT.match(text)) and _is_constant(match[1]):
        return match[1], _find("^\\circ" if match[2] == "°" else match[2])
    if match := _TEXT.match(text):
        unit = _find(match[2], int(match[3] or 1))
        return (match[1], unit) if unit else (text, None)
    match = _PLAIN.match(text)
    # Letters right behind a digit are a product, as in `2m`, unless they can be nothing but a unit.
    if match and _is_constant(match[1]) and (match[2] or (len(match[3]) > 1 and match[3].lower() in _UNITS)):
        unit = _find(match[3], int(match[4] or 1))
        return (match[1], unit) if unit else (text, None)
    return text, None


def _is_constant(value: str) -> bool:
    """Whether no variable and no function stands before the unit: `\\tan 45` has no degrees, its argument does."""
    return not re.search(r"[a-zA-Z]", re.sub(r"\\(?:frac|sqrt|pi|cdot|times)(?![a-zA-Z])", "", value))


def _find(name: str, power: int = 1) -> Unit | None:
    name = name.lower().replace(" per ", "/").strip(" .")
    if set(re.split(r"\W+", name)) & _NO_UNITS:
        return None
    if match := _SQUARE.match(name):
        name, power = (match[1], 2) if match[1] else (match[2], 3)
    unit = _UNITS.get(name) or _UNITS.get(name.removesuffix("s")) or _UNITS.get(name.removesuffix("es"))
    if unit is None:
        return Unit(name.removesuffix("s"), Fraction(1))
    if unit.dimension == "length" and power == 3:
        return Unit("volume", unit.factor**3)
    return unit if power == 1 else Unit(f"{unit.dimension}^{power}", unit.factor**power)
