"""Quantities: a value with a unit behind it (or a currency before it), and which units convert into which."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from fractions import Fraction

# names -> how many of what: numbers, and names of units that stand before it in the table, with their powers
_TABLE = """
m meter metre 米 公尺 = 1
g gram gramme 克 = 1
s sec second 秒 = 1
A amp ampere 安培 = 1
K kelvin = 1
mol mole 摩尔 = 1
cd candela = 1
byte = 1
% percent pct percentage 个百分点 = 1/100
dollar $ usd buck 美元 = 1
cent ¢ 美分 = 1/100 dollar
euro € eur 欧元 = 1
poundsterling £ gbp 英镑 = 1
penny pence p = 1/100 poundsterling
rupee ₹ rs inr = 1
yuan ¥ rmb cny 元 块 人民币 = 1
角 毛 = 1/10 yuan
分钱 = 1/100 yuan
yen jpy 日元 = 1
km kilometer kilometre 千米 公里 = 1000 m
dm decimeter decimetre 分米 = 1/10 m
cm centimeter centimetre 厘米 公分 = 1/100 m
mm millimeter millimetre 毫米 = 1/1000 m
μm um micrometer micrometre micron 微米 = 1/1000000 m
nm nanometer nanometre 纳米 = 1/1000000000 m
in inch inches 英寸 = 254/10000 m
ft foot feet 英尺 = 12 in
yd yard 码 = 3 ft
mi mile 英里 = 5280 ft
lightyear = 9460730472580800 m
kg kilogram kilo 千克 公斤 = 1000 g
mg milligram 毫克 = 1/1000 g
μg ug microgram = 1/1000000 g
t ton tonne 吨 = 1000000 g
斤 = 500 g
lb lbs 磅 = 45359237/100000 g
oz ounce = 1/16 lb
ms millisecond 毫秒 = 1/1000 s
μs us microsecond = 1/1000000 s
ns nanosecond = 1/1000000000 s
min minute 分钟 分 = 60 s
h hr hour 小时 时 钟头 = 60 min
day 天 日 = 24 h
week wk 周 星期 = 7 day
month 个月 月 = 1
yr year 年 岁 = 12 month
L l liter litre 升 = 1/1000 m3
mL ml milliliter millilitre cc 毫升 = 1/1000 L
gal gallon = 3785411784/1000000000 L
quart qt = 1/4 gal
pint pt = 1/8 gal
cup = 1/16 gal
hectare ha 公顷 = 10000 m2
acre = 4840 yd2
亩 = 2000/3 m2
mph = 1 mi h-1
kph kmh kmph = 1 km h-1
mps = 1 m s-1
kt knot = 1852 m h-1
Hz hertz 赫兹 = 1 s-1
kHz = 1000 Hz
MHz = 1000000 Hz
N newton 牛 牛顿 = 1 kg m s-2
kN kilonewton = 1000 N
J joule 焦 焦耳 = 1 N m
kJ kilojoule 千焦 = 1000 J
MJ megajoule = 1000000 J
cal calorie = 4184/1000 J
kcal kilocalorie = 1000 cal
eV electronvolt = 1602176634/10000000000000000000000000000 J
W watt 瓦 = 1 J s-1
kW kilowatt 千瓦 = 1000 W
MW megawatt = 1000000 W
mW milliwatt = 1/1000 W
kWh kilowatthour = 3600000 J
Pa pascal 帕 = 1 N m-2
kPa kilopascal = 1000 Pa
MPa megapascal = 1000000 Pa
hPa = 100 Pa
bar = 100000 Pa
atm atmosphere = 101325 Pa
C coulomb 库仑 = 1 A s
V volt 伏 伏特 = 1 W A-1
kV kilovolt = 1000 V
mV millivolt = 1/1000 V
mA milliampere milliamp = 1/1000 A
Ω ohm \\Omega 欧姆 = 1 V A-1
kΩ kilohm = 1000 Ω
F farad = 1 C V-1
H henry = 1 V s A-1
T tesla = 1 V s m-2
mmol millimole = 1/1000 mol
M molar = 1000 mol m-3
bit = 1/8 byte
KB kB kilobyte = 1000 byte
MB megabyte = 1000000 byte
GB gigabyte = 1000000000 byte
rad radian 弧度 = 1
\\degree degree deg 度 = 1
arcmin arcminute = 1/60 \\degree
arcsec arcsecond = 1/3600 \\degree
dozen 打 = 12
bpm = 1 beat min-1
rpm = 1 revolution min-1
折 = 1/10
"""
# What only counts: it may stand there or not.
_COUNTS = frozenset(
    "unit units item items 个 只 本 种 条 张 人 名 次 组 页 件 颗 棵 位 辆 支 枝"
    " 块 册 箱 袋 头 朵 座 间 道 题 场 步 层 排 行 列 对 双".split()
)
_PREFIXED_POWERS = {"square": 2, "sq": 2, "cubic": 3, "cu": 3, "平方": 2, "立方": 3}
# Words behind a number that are no unit: they change its meaning, or begin a sentence.
_NO_UNITS = frozenset(
    "or and less more at least most not than about approximately mod times to over under plus minus is are was were"
    " if when where for because since so with from between only also both either neither base below above up down"
    " am pm a.m p.m o'clock".split()
)
_NAME = re.compile(r"\\Omega|\\degree|[a-zA-ZμΩ$€£¥₹¢%]+|[^\W\d_a-zA-Z]+")
_POWER = re.compile(r"\^?\{?(-?\d)\}?")
MAX_UNIT_CHARS = 60


@dataclass(frozen=True)
class Unit:
    """A unit: its dimensions, and how to convert it."""

    dimensions: tuple[tuple[str, int], ...]
    factor: Fraction = Fraction(1)
    offset: Fraction = Fraction(0)  # added after the factor: temperatures

    @property
    def is_ratio(self) -> bool:
        """True if it has no dimensions."""
        return not self.dimensions

    @property
    def is_angle(self) -> bool:
        """True if it is radians or degrees."""
        return self.dimensions in (_RADIANS, _DEGREES)


@dataclass
class _Product:
    dimensions: Counter[str] = field(default_factory=Counter)
    factor: Fraction = Fraction(1)

    def multiply(self, unit: Unit, power: int) -> None:
        self.factor *= unit.factor**power
        for name, exponent in unit.dimensions:
            self.dimensions[name] += exponent * power

    def unit(self) -> Unit:
        return Unit(tuple(sorted((name, power) for name, power in self.dimensions.items() if power)), self.factor)


_RADIANS, _DEGREES = (("rad", 1),), (("\\degree", 1),)
_TEMPERATURES = {
    "C": Unit((("K", 1),), Fraction(1), Fraction(27315, 100)),
    "F": Unit((("K", 1),), Fraction(5, 9), Fraction(45967, 180)),
}


def _read_table() -> dict[str, Unit]:
    units: dict[str, Unit] = {}
    for line in _TABLE.strip().splitlines():
        names, _, definition = line.partition("=")
        factor, *parts = definition.split()
        product = _Product(factor=Fraction(factor))
        for part in parts:
            match = re.fullmatch(r"(.+?)(-?\d)?", part)
            assert match
            product.multiply(units.get(match[1], Unit(((match[1], 1),))), int(match[2] or 1))
        first = names.split()[0]
        is_base = not parts and product.factor == 1
        unit = Unit(((first, 1),)) if is_base else product.unit()
        units.update(dict.fromkeys(names.split(), unit))
    return units


# Symbols, not names, that take a prefix; the table has those whose prefixed form needs a name of its own.
_PREFIXABLE = "m g s A V W J N Pa Hz F H T C Ω eV L mol bar cal".split()
_PREFIXES = {"G": 9, "M": 6, "k": 3, "h": 2, "d": -1, "c": -2, "m": -3, "μ": -6, "u": -6, "n": -9, "p": -12}
_NOT_PREFIXED = frozenset(("cd", "pH", "hs", "ds", "cs", "das", "Gs", "Ms", "hA", "dA", "cA", "cT", "dT"))


def _with_prefixes(units: dict[str, Unit]) -> dict[str, Unit]:
    for symbol in _PREFIXABLE:
        unit = units[symbol]
        for prefix, power in _PREFIXES.items():
            if prefix + symbol not in _NOT_PREFIXED:
                units.setdefault(prefix + symbol, Unit(unit.dimensions, unit.factor * Fraction(10) ** power))
    return units


_UNITS = _with_prefixes(_read_table())

_CURRENCY = re.compile(r"^(-?)\s*\\?([$€£¥₹])\s*(-?[\d.].*)$")
_CURRENCY_CODE = re.compile(r"^(USD|EUR|GBP|CNY|RMB|JPY|INR|Rs\.?)\s+([\d.].*)$")
_TEMPERATURE = re.compile(r"^(.*?[\d)}])\s*(?:\^\\circ|\\degree)\s*(?:\\text\{\s*)?([CF])(?:elsius|ahrenheit)?\s*\}?$")
_PARENTHESISED = re.compile(r"^(.*\d)\s*\(([^()\d+*/=,-]{1,12})\)$")
_GLUED = re.compile(r"^(-?\d+(?:\.\d+)?)([A-Za-zΩ]{1,3})$")
_TEXT_UNIT = re.compile(r"\\text\{\s*([^{}]*?)\s*\}")
_COMPOUND = re.compile(r"(\d+(?:\.\d+)?)\s*([^\W\d_]+|\^\\circ|'|\\text\{[^{}]*\})\s*(?:,|and)?\s*")


def split_quantity(text: str) -> tuple[str, Unit | None]:
    """The value before a unit, and the unit; the text as it is and None if there is none.

    A word that is no known unit (`5 apples`) is a unit of its own that converts to no other.
    """
    if match := _CURRENCY.match(text):
        value, unit = split_quantity(match[3])
        return match[1] + (value if unit else match[3]), _UNITS[match[2]]
    if match := _CURRENCY_CODE.match(text):
        return match[2], _UNITS[match[1].rstrip(".").lower()]
    if match := _TEMPERATURE.match(text):
        return match[1], _TEMPERATURES[match[2]]
    if match := _PARENTHESISED.match(text):
        text = f"{match[1]} {match[2]}"
    if text.endswith('"') and text[:-1].isdigit():
        return text[:-1], _UNITS["in"]
    if text.endswith("'") and text[:-1].isdigit():
        return text[:-1], Unit((("'", 1),))
    if compound := _compound(text):
        return compound
    text = text.replace(r"^\circ", r"\degree ").strip()
    for start in _unit_starts(text):
        unit = _read_unit(text[start:], text[:start])
        if unit is not None:
            return text[:start].strip().rstrip("\\").strip(), unit
    return text.replace(r"\degree", r"^\circ"), None


def is_compound(text: str) -> bool:
    """Tests whether it is one quantity in several units: `2 hours and 30 minutes`."""
    return _compound(text) is not None


def split_glued(text: str, like: Unit | None) -> tuple[str, Unit | None]:
    """As `split_quantity`, for a symbol right behind a number, as in `12V`: a unit if it measures what `like` does."""
    match = _GLUED.match(text)
    unit = _UNITS.get(match[2]) if match else None
    return (match[1], unit) if match and unit and like and unit.dimensions == like.dimensions else (text, None)


def leading_unit(text: str) -> str:
    """The known unit that a text begins with, as it is written there; empty if there is none."""
    word = text.strip()
    for end in range(len(word), 0, -1):
        name = word[:end].rstrip("²³23^")
        if end < len(word) and word.isascii():
            break
        for candidate in (name, name.lower(), name.lower().removesuffix("s"), name.lower().removesuffix("es")):
            if candidate in _UNITS and candidate not in ("p", "in", "s"):
                return text[: text.index(word)] + word[:end]
    return ""


def _unit_starts(text: str) -> list[int]:
    """Returns where a unit may begin: behind a digit or a closing bracket, with a letter or a sign; the longest
    first."""
    starts = [
        match.start()
        for match in re.finditer(r"(?<=[\d)}\]!i])\s*(?=[^\W\d_]|\\text|\\degree|\\Omega|[%$€£¥₹¢°])", text)
        if len(text) - match.start() <= MAX_UNIT_CHARS
    ]
    starts += [match.end() for match in re.finditer(r"\\pi(?![a-zA-Z])(?=\s*(?:\\text|\\degree|cm|m\b|rad))", text)]
    return [start for start in sorted(starts) if _is_balanced(text[:start])]


def _is_balanced(text: str) -> bool:
    return (
        all(text.count(a) == text.count(b) for a, b in ("{}", "()", "[]"))
        or re.match(r"^[\[(].*[\])]$", text) is not None
    )


def _compound(text: str) -> tuple[str, Unit] | None:
    """`5 ft 6 in` and `30^\\circ 15'` in the first of their units."""
    parts: list[tuple[Fraction, Unit]] = []
    position = 0
    while position < len(text):
        match = _COMPOUND.match(text, position)
        if match is None:
            return None
        name = {"^\\circ": "\\degree", "'": "arcmin"}.get(
            match[2], _TEXT_UNIT.sub(r"\1", match[2]).strip().removesuffix(" and")
        )
        unit = _UNITS.get(name) or _UNITS.get(name.removesuffix("s"))
        if unit is None:
            return None
        parts.append((Fraction(match[1]), unit))
        position = match.end()
    if len(parts) < 2 or len({unit.dimensions for _, unit in parts}) > 1:
        return None
    first = parts[0][1]
    total = sum((value * unit.factor for value, unit in parts), Fraction(0)) / first.factor
    return f"{total.numerator}/{total.denominator}", first


def _read_unit(text: str, value: str) -> Unit | None:
    """A unit expression: names with powers, products and quotients. None if it is none."""
    written_as_text = "\\text" in text
    spaced = text[:1] == " " or written_as_text
    text = re.sub(r"\s+(?=\^)|(?<=\s)\s+", "", _TEXT_UNIT.sub(r" \1 ", text)).strip(" .;")
    text = re.sub(r"\bper\b|每", "/", text).replace(r"\cdot", " ").replace("·", " ").replace("*", " ")
    if text.lower() in ("seconds squared", "second squared"):
        text = "s^2"
    words = re.split(r"[\s/]+", text.lower())
    if not text or set(words) & _NO_UNITS or (not _is_constant(value) and not written_as_text):
        return None
    product, sign, power, position, known = _Product(), 1, 1, 0, True
    while position < len(text):
        if text[position] in " ~\\{}()" and not text.startswith(("\\degree", "\\Omega"), position):
            position += 1
            continue
        if text[position] == "/":
            sign, position = -1, position + 1
            continue
        match = _NAME.match(text, position)
        if match is None:
            return None
        position, name = match.end(), match[0]
        if name.lower() in _PREFIXED_POWERS and position < len(text):
            power = _PREFIXED_POWERS[name.lower()]
            continue
        if name == "squared":
            return None
        unit, power, is_known = _lookup(name, power)
        if not is_known and not written_as_text and name.isascii() and len(name) < 3:
            return None  # letters of a formula
        known &= is_known
        if behind := _POWER.match(text, position):
            power, position = power * int(behind[1]), behind.end()
        elif text.startswith(" squared", position):
            power, position = power * 2, position + 8
        elif text.startswith(" cubed", position):
            power, position = power * 3, position + 6
        product.multiply(unit, sign * power)
        power = 1
    # Letters right behind a digit are a product, as in `2m`, unless the whole can be nothing but a unit.
    if not spaced and not known:
        return None
    if not spaced and len(text) == 1 and text.isalpha() and text.isascii() and text not in "m":
        return None
    return product.unit()


def _lookup(name: str, power: int) -> tuple[Unit, int, bool]:
    for prefix, prefixed in (("平方", 2), ("立方", 3)):
        if name.startswith(prefix) and len(name) > 2:
            name, power = name[2:], prefixed
    for candidate in (
        name,
        name.lower(),
        name.removesuffix("s"),
        name.lower().removesuffix("s"),
        name.lower().removesuffix("es"),
    ):
        if candidate in _UNITS:
            return _UNITS[candidate], power, True
    if name in _COUNTS:
        return Unit(()), power, True
    return Unit(((name.lower().removesuffix("s"), 1),)), power, False


def _is_constant(value: str) -> bool:
    """Tests whether no unknown and no function stands before the unit: `\\tan 45` has no degrees, its argument does."""
    return not re.search(
        r"[a-zA-Z]", re.sub(r"\\(?:frac|sqrt|pi|cdot|times|text\{[^{}]*\})(?![a-zA-Z])|(?<=\d)e-?\d+", "", value)
    )
