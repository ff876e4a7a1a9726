#%% right OK
from fractions import Fraction
from decimal import Decimal
import datetime as dt
from enum import Enum, IntEnum
from dataclasses import dataclass, field
class Color(Enum):
    RED = 1
    BLUE = 2
class Level(IntEnum):
    LOW = 1
    HIGH = 2
class Name(str):
    def shout(self): return self.upper() + "!"
@dataclass
class P:
    x: int
    y: int = 0
    tags: list = field(default_factory=list)
@dataclass(frozen=True, order=True)
class Q:
    x: int
def half(n): return Fraction(n, 2)
def cents(n): return Decimal(n) / 100
def rot(z): return z * 1j
def later(t, d): return t + dt.timedelta(days=d)
def aware(): return dt.datetime(2020, 1, 1, tzinfo=dt.timezone.utc)
def letters(s): return set(s)
def count(s): return {c: s.count(c) for c in s}
def raw(s): return s.encode()
def pairs(s): return list(enumerate(s))
def color(n): return Color(n)
def name(s): return Name(s)
def point(x): return P(x)
def nan(): return float("nan")
def empty(): return None
def fz(s): return frozenset(s)
LIMIT = 10
TABLE = {"a": [1, 2]}
#%% wrong
from fractions import Fraction
def half(n): return Fraction(n, 3)
#%% tests
import math
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
import unittest
import pytest
import solution
from solution import *
from solution import Color, Level, Name, P, Q
class T(unittest.TestCase):
    @classmethod
    def setUpClass(cls): cls.p = P(1, 2)
    def setUp(self): self.q = Q(3)
    def test_values(self):
        self.assertEqual(half(3), Fraction(3, 2))
        self.assertEqual(half(3) + 1, Fraction(5, 2))
        self.assertEqual(cents(150), Decimal("1.5"))
        self.assertEqual(rot(1 + 1j), -1 + 1j)
        self.assertEqual(later(date(2020, 1, 31), 1), date(2020, 2, 1))
        self.assertEqual(later(datetime(2020, 1, 31, 5), 1).day, 1)
        self.assertEqual(aware(), datetime(2020, 1, 1, tzinfo=timezone.utc))
        self.assertSetEqual(letters("aab"), {"a", "b"})
        self.assertDictEqual(count("aab"), {"a": 2, "b": 1})
        self.assertEqual(raw("é"), b"\xc3\xa9")
        self.assertCountEqual(pairs("ab"), [(1, "b"), (0, "a")])
        self.assertIsNone(empty())
        self.assertTrue(math.isnan(nan()))
        self.assertIsInstance(fz("a"), frozenset)
    def test_classes(self):
        self.assertIs(color(1), Color.RED)
        self.assertEqual(color(2).name, "BLUE")
        self.assertEqual([c.value for c in Color], [1, 2])
        self.assertEqual(Color["RED"], Color.RED)
        self.assertIn(Color.RED, Color)
        self.assertEqual(Level.HIGH, 2)
        self.assertTrue(Level.LOW < Level.HIGH)
        self.assertEqual(Level.LOW + 1, 2)
        self.assertEqual(name("a"), "a")
        self.assertIsInstance(name("a"), str)
        self.assertEqual(name("a").shout(), "A!")
        self.assertEqual(name("a") + "b", "ab")
        self.assertEqual(f"{name('a')}", "a")
        self.assertEqual(point(1), P(1))
        self.assertNotEqual(point(1), P(2))
        self.assertEqual(repr(P(1, 2)), "P(x=1, y=2, tags=[])")
        self.assertEqual(self.p.y, 2)
        with self.assertRaises(Exception): self.q.x = 4
        self.assertLess(Q(1), Q(2))
        self.assertEqual(len({Q(1), Q(1)}), 1)
        self.assertEqual(sorted([Q(2), Q(1)]), [Q(1), Q(2)])
    def test_sub(self):
        for n, want in [(1, 0.5), (2, 1)]:
            with self.subTest(n=n): self.assertAlmostEqual(half(n), want)
    def test_constants(self):
        self.assertEqual(solution.LIMIT, 10)
        self.assertEqual(LIMIT, 10)
        self.assertEqual(TABLE["a"][1], 2)
        self.assertEqual(solution.half.__name__, "half")
