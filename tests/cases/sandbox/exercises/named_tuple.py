#%% right OK
from collections import namedtuple
from typing import NamedTuple
Point = namedtuple("Point", "x y")
class Card(NamedTuple):
    rank: int
    suit: str = "spades"
    def name(self): return f"{self.rank} of {self.suit}"
def middle(a, b): return Point((a.x + b.x) / 2, (a.y + b.y) / 2)
def deal(): return [Card(1), Card(2, "hearts")]
#%% wrong
from collections import namedtuple
Point = namedtuple("Point", "y x")
class Card:
    rank, suit = 1, "spades"
def middle(a, b): return Point(0, 0)
def deal(): return []
#%% tests
from solution import Card, Point, deal, middle
def test_fields():
    p = middle(Point(0, 0), Point(2, 4))
    assert p.x == 1 and p.y == 2 and p == (1, 2) and p == Point(1, 2) and isinstance(p, Point) and isinstance(p, tuple)
    assert p._asdict() == {"x": 1, "y": 2} and p._replace(x=5) == (5, 2) and Point._fields == ("x", "y")
    a, b = deal()
    assert a.name() == "1 of spades" and b.suit == "hearts" and b[0] == 2 and [c.rank for c in deal()] == [1, 2]
    assert type(a) is Card and a < b
