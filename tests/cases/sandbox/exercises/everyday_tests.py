#%% right OK
class BadInput(ValueError):
    def __init__(self, what, code=3):
        super().__init__(f"bad {what}")
        self.code = code
class Deep(BadInput): pass
log = []
def check(x):
    if x < 0: raise BadInput(x)
    if x > 99: raise Deep(x, code=9)
    if x == 50: raise KeyError("fifty")
    return x
def down(n): return 0 if n == 0 else 1 + down(n - 1)
def forever(n): return forever(n + 1)
def gen(n):
    for i in range(n):
        log.append(i)
        yield i
def squares():
    i = 0
    while True:
        yield i * i
        i += 1
class Temp:
    def __init__(self): self._c = 0; self.closed = False
    @property
    def c(self): return self._c
    @c.setter
    def c(self, v):
        if v < -273: raise ValueError("Too cold")
        self._c = v
    @classmethod
    def of(cls, c): t = cls(); t.c = c; return t
    @staticmethod
    def f(c): return c * 9 / 5 + 32
    def __enter__(self): return self
    def __exit__(self, kind, e, tb): self.closed = True; return kind is KeyError
class Bag:
    def __init__(self, items=()): self.items = list(items)
    def __iter__(self): return iter(self.items)
    def __len__(self): return len(self.items)
    def __contains__(self, x): return x in self.items
    def __getitem__(self, i): return self.items[i]
    def __setitem__(self, i, v): self.items[i] = v
    def __delitem__(self, i): del self.items[i]
    def __reversed__(self): return reversed(self.items)
    def add(self, x): self.items.append(x); return self
class Animal:
    def speak(self): return f"{self.name} says {self.sound}"
class Dog(Animal):
    sound = "woof"
    def __init__(self, name): self.name = name
def by(items, key): items.sort(key=key); return items
def apply(f, *a, **k): return f(*a, **k)
def twice(f):
    def inner(*a): return f(*a), f(*a)
    return inner
def greet():
    n = input("Name? ")
    print("Hello,", n)
def fill(d): d["x"] = 1; d.pop("y", None)
def nested(m): m[0][0] = 9; m.append([1])
def uniq(s): s.add(3)
def memo(n, cache={}):
    cache[n] = n
    return cache
#%% wrong
class BadInput(ValueError): pass
class Deep(BadInput): pass
log = []
def check(x): raise BadInput("no")
#%% tests
import io
import sys
import itertools
import unittest
from contextlib import redirect_stdout
from unittest.mock import patch
import pytest
import solution
from solution import *
@pytest.fixture
def bag(): return Bag([1, 2, 3])
@pytest.fixture(params=[1, 2])
def n(request): return request.param
@pytest.mark.parametrize("x", [0, 5, 99])
def test_check(x): assert check(x) == x
def test_errors():
    with pytest.raises(BadInput, match="bad -1") as e: check(-1)
    assert e.value.code == 3 and str(e.value) == "bad -1" and e.value.args == ("bad -1",)
    with pytest.raises(ValueError): check(-1)
    with pytest.raises(BadInput) as e: check(100)
    assert e.type is Deep and isinstance(e.value, Deep) and e.value.code == 9
    with pytest.raises(KeyError) as e: check(50)
    assert str(e.value) == "'fifty'"
    assert issubclass(Deep, BadInput) and issubclass(BadInput, ValueError)
    try: check(-2)
    except BadInput as err: assert err.code == 3
    else: assert False
def test_recursion():
    assert down(300) == 300
    with pytest.raises(RecursionError): forever(0)
def test_lazy():
    g = gen(3)
    assert solution.log == []
    assert next(g) == 0 and solution.log == [0]
    assert list(g) == [1, 2]
    with pytest.raises(StopIteration): next(g)
    assert list(itertools.islice(squares(), 4)) == [0, 1, 4, 9]
    assert next(gen(0), "none") == "none"
def test_temp():
    t = Temp(); t.c = 20
    assert t.c == 20 and Temp.f(100) == 212 and Temp.of(3).c == 3
    with pytest.raises(ValueError, match="Too cold"): t.c = -300
    with Temp() as u:
        assert not u.closed
        raise KeyError("swallowed")
    assert u.closed
    with pytest.raises(ZeroDivisionError):
        with Temp(): 1 / 0
def test_bag(bag, n):
    assert len(bag) == 3 and list(bag) == [1, 2, 3] and 2 in bag and 7 not in bag
    assert bag[0] == 1 and bag[-1] == 3 and bag[1:] == [2, 3] and list(reversed(bag)) == [3, 2, 1]
    bag[0] = n; assert bag[0] == n
    del bag[0]; assert len(bag) == 2
    assert list(bag.add(8).add(9)) == [2, 3, 8, 9] and 9 in bag
    a, *rest = bag
    assert a == 2 and sum(bag) == 22 and max(bag) == 9 and sorted(bag, reverse=True)[0] == 9
    with pytest.raises(IndexError): bag[99]
    assert isinstance(bag, Bag)
    assert [*bag, 1][-1] == 1 and dict(enumerate(bag))[0] == 2 and list(zip(bag, "ab"))[0] == (2, "a")
def test_animals():
    d = Dog("Rex")
    assert d.speak() == "Rex says woof" and isinstance(d, Animal) and issubclass(Dog, Animal) and Dog.sound == "woof"
    assert hasattr(d, "speak") and not hasattr(d, "fly") and type(d) is Dog and d.__class__.__name__ == "Dog"
    assert callable(d.speak) and d is not Dog("Rex") and d != Dog("Rex") and d == d
    with pytest.raises(AttributeError): d.fly()
    with pytest.raises(TypeError): Dog()
def test_functions():
    l = ["bb", "a", "ccc"]
    assert by(l, len) is l and l == ["a", "bb", "ccc"]
    assert by(l, lambda s: -len(s))[0] == "ccc"
    assert apply(lambda a, b=1: a + b, 2, b=5) == 7 and apply(max, [1, 3]) == 3
    calls = []
    assert twice(lambda x: calls.append(x) or len(calls))(7) == (1, 2) and calls == [7, 7]
    d = {"y": 2}; fill(d); assert d == {"x": 1}
    m = [[1], [2]]; row = m[0]; nested(m); assert m == [[9], [2], [1]] and row == [9]
    s = {1}; uniq(s); assert s == {1, 3}
    assert memo(1) == {1: 1} and memo(2) == {1: 1, 2: 2}
def test_greet(capsys, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda p: "Bo")
    greet()
    assert capsys.readouterr().out == "Hello, Bo\n"
def test_greet2():
    out = io.StringIO()
    with patch("builtins.input", return_value="Al") as asked, redirect_stdout(out): greet()
    assert out.getvalue() == "Hello, Al\n"
    asked.assert_called_once_with("Name? ")
class T(unittest.TestCase):
    @patch("builtins.input", side_effect=["x"])
    @patch("sys.stdout", new_callable=io.StringIO)
    def test_greet(self, out, _):
        greet()
        self.assertEqual(out.getvalue(), "Hello, x\n")
    def test_messages(self):
        with self.assertRaises(BadInput) as cm: check(-5)
        self.assertEqual(cm.exception.args[0], "bad -5")
        self.assertEqual(str(cm.exception), "bad -5")
        self.assertEqual(type(cm.exception), BadInput)
        with self.assertRaisesRegex(BadInput, r"bad -\d"): check(-5)
        self.assertRaises(ValueError, check, -1)
