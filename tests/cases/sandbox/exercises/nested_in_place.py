#%% right OK
class Stack:
    def __init__(self): self.items = []
    def push(self, x): self.items.append(x); return self
    def pop(self):
        if not self.items: raise IndexError("pop from empty stack")
        return self.items.pop()
    def __len__(self): return len(self.items)
    def __contains__(self, x): return x in self.items
class Matrix:
    def __init__(self, rows): self.rows = rows
    def __matmul__(self, o): return Matrix([[sum(a * b for a, b in zip(r, c)) for c in zip(*o.rows)] for r in self.rows])
    def __eq__(self, o): return isinstance(o, Matrix) and self.rows == o.rows
    def __getitem__(self, ij): return self.rows[ij[0]][ij[1]]
class Temp(float):
    def f(self): return Temp(self * 9 / 5 + 32)
class Path2(str):
    def __truediv__(self, o): return Path2(f"{self}/{o}")
class Grid(dict):
    def __missing__(self, k): return 0
class Sorted(list):
    def add(self, x): self.append(x); self.sort()
def rotate(m):
    m[:] = [list(r) for r in zip(*m[::-1])]
def swap(m): m[0], m[1] = m[1], m[0]
def deep(d): d["a"]["b"].append(1); d["new"] = {}
def pop(m): return m.pop(0)
def gen():
    got = yield 1
    yield got * 2
def it(n):
    try: yield n
    finally: pass
def kw(*, a=1, **rest): return a, rest
def ann(x: int) -> str: "Doc."; return str(x)
import functools
@functools.lru_cache(maxsize=None)
def fib(n): return n if n < 2 else fib(n - 1) + fib(n - 2)
def today(): return None
#%% wrong
class Stack: pass
#%% tests
import pytest
from copy import deepcopy
from solution import *
from solution import Stack
def test_stack():
    s = Stack()
    s.push(1).push(2)
    assert len(s) == 2 and s.pop() == 2
    t = Stack(); t.items.append(1)
    assert 5 not in t
    s.pop()
    with pytest.raises(IndexError) as info: s.pop()
    assert "empty" in str(info.value) and info.value.args == ("pop from empty stack",)
def test_matrix():
    assert Matrix([[1, 2]]) @ Matrix([[1], [2]]) == Matrix([[5]])
    assert (Matrix([[1, 2]]) @ Matrix([[1], [2]])).rows == [[5]] and Matrix([[1, 2]])[0, 1] == 2
def test_heirs():
    assert Temp(100).f() == 212 and Temp(0) + 1 == 1 and isinstance(Temp(1).f(), Temp) and round(Temp(1.26), 1) == 1.3
    assert Path2("a") / "b" == "a/b" and Path2("a").upper() == "A"
    g = Grid(a=1); assert g["a"] == 1 and g["zz"] == 0 and g == {"a": 1}
    l = Sorted([3]); l.add(1); assert l == [1, 3] and list(l) == [1, 3] and len(l) == 2 and l[0] == 1
def test_in_place():
    m = [[1, 2], [3, 4]]; rotate(m); assert m == [[3, 1], [4, 2]]
    a, b = m; swap(m); assert m[0] is b and m[1] is a
    d = {"a": {"b": []}}; inner = d["a"]["b"]; deep(d); assert inner == [1] and d == {"a": {"b": [1]}, "new": {}}
    m = [[1], [2]]; first, second = m; assert pop(m) == [1] and m == [[2]] and m[0] is second and first == [1]
def test_functions():
    g = gen(); assert next(g) == 1 and g.send(4) == 8
    g = it(1); next(g); g.close()
    assert kw(a=2, b=3) == (2, {"b": 3})
    assert ann.__annotations__["return"] is str and ann.__doc__ == "Doc." and ann.__name__ == "ann"
    assert fib(30) == 832040
    fib.cache_clear()
    with pytest.raises(TypeError): kw(1)
