#%% right OK
import functools
@functools.total_ordering
class Card:
    RANKS = "23456789TJQKA"
    def __init__(self, s): self.s = s
    def __eq__(self, o): return isinstance(o, Card) and self.s == o.s
    def __lt__(self, o):
        if not isinstance(o, Card): return NotImplemented
        return self.RANKS.index(self.s) < self.RANKS.index(o.s)
    def __hash__(self): return hash(self.s)
    def __str__(self): return self.s
class Node:
    def __init__(self, v, next=None): self.v, self.next = v, next
class Linked:
    def __init__(self, vs=()):
        self.head = None
        for v in vs: self.push(v)
    def push(self, v): self.head = Node(v, self.head)
    def pop(self):
        if self.head is None: raise IndexError("empty")
        n, self.head = self.head, self.head.next
        return n.v
    def __iter__(self):
        n = self.head
        while n: yield n.v; n = n.next
    def __eq__(self, o): return list(self) == list(o)
def best(cards): return max(cards)
def group(cards): return {c: str(c) for c in cards}
def parse(s): return [Card(c) for c in s]
class Clock:
    def __init__(self, h, m): self.t = (h * 60 + m) % 1440
    def __repr__(self): return f"Clock({self.t // 60}, {self.t % 60})"
    def __str__(self): return f"{self.t // 60:02}:{self.t % 60:02}"
    def __eq__(self, o): return self.t == o.t
    def __add__(self, m): return Clock(0, self.t + m)
    def __sub__(self, m): return Clock(0, self.t - m)
class Acc:
    def __init__(self): self.b = 0
    def __iadd__(self, n): self.b += n; return self
    def __int__(self): return self.b
    def __index__(self): return self.b
    def __float__(self): return float(self.b)
    def __bool__(self): return self.b > 0
def add_all(t):
    t.b += 100
#%% wrong
class Card:
    def __init__(self, s): self.s = s
class Node: pass
class Linked: pass
def best(c): return c[0]
def group(c): pass
def parse(s): return []
class Clock:
    def __init__(self, h, m): pass
class Acc: pass
def add_all(t): pass
#%% tests
import pytest
from solution import Acc, Card, Clock, Linked, Node, add_all, best, group, parse
def test_card():
    assert best([Card("2"), Card("A"), Card("T")]) == Card("A")
    assert Card("2") <= Card("3") and Card("A") >= Card("K") and Card("A") > Card("2")
    assert group([Card("2")])[Card("2")] == "2"
    assert parse("2A") == [Card("2"), Card("A")]
    assert sorted(parse("A2K")) == parse("2KA")
    assert {Card("2"), Card("3")} == {Card("3"), Card("2")}
    assert Card("A") in parse("2A") and parse("2A").index(Card("A")) == 1
    assert (Card("2"), 1) == (Card("2"), 1) and [str(c) for c in parse("2A")] == ["2", "A"]
    with pytest.raises(TypeError): Card("2") < 3
    assert not (Card("2") == None) and Card("2") is not None
def test_linked():
    l = Linked([1, 2])
    assert list(l) == [2, 1] and l.pop() == 2 and l.head.v == 1 and l.head.next is None
    l.pop()
    with pytest.raises(IndexError, match="empty"): l.pop()
    assert Linked([1]) == Linked([1]) and Linked([1]) != Linked([2])
def test_clock():
    assert str(Clock(8, 0) + 61) == "09:01" and Clock(25, 0) == Clock(1, 0) and str(Clock(0, 0) - 1) == "23:59"
    assert repr(Clock(1, 2)) == "Clock(1, 2)" and Clock(0, 0) + 1 + 1 == Clock(0, 2) and Clock(1, 0) != Clock(2, 0)
def test_acc():
    a = Acc(); a += 5; a += 2
    assert int(a) == 7 and float(a) == 7.0 and bool(a) and [0] * 8 != [] and range(10)[a] == 7
    add_all(a); assert a.b == 107
