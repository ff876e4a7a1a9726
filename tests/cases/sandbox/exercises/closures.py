#%% right OK
def parse(x):
    class Expr:
        def __init__(self, s): self.s = s
        def evaluate(self, **k): return eval(self.s, {}, k)
        def __call__(self, x): return self.evaluate(x=x)
    return Expr(x)
def counter():
    n = 0
    def inc():
        nonlocal n
        n += 1
        return n
    return inc
def partial(f, *a):
    import functools
    return functools.partial(f, *a)
def compose(*fs):
    def h(x):
        for f in reversed(fs): x = f(x)
        return x
    return h
def safe(f):
    try: return f()
    except ValueError as e: return f"bad: {e}"
    except KeyError as e: return e.args
def many(): return iter([1, 2]), map(str, [1]), zip([1], [2]), {"a": 1}.keys(), range(3), (i for i in "ab")
def nothing(*args, key=None): return args, key
def opt(s, /, *, k=1): return s * k
#%% wrong
def parse(x): pass
#%% tests
import pytest
from solution import *
def boom(e): raise e
def test():
    e = parse("x + 1")
    assert e.evaluate(x=2) == 3 and e(4) == 5
    c = counter(); assert (c(), c()) == (1, 2) and counter()() == 1
    assert partial(lambda a, b: a - b, 5)(3) == 2
    assert compose(str, abs)(-3) == "3"
    assert safe(lambda: boom(ValueError("x"))) == "bad: x" and safe(lambda: boom(KeyError("k"))) == ("k",)
    with pytest.raises(ZeroDivisionError): safe(lambda: 1 / 0)
    a, b, z, k, r, g = many()
    assert list(a) == [1, 2] and list(b) == ["1"] and list(z) == [(1, 2)] and list(k) == ["a"] and list(r) == [0, 1, 2]
    assert "".join(g) == "ab" and r == range(3)
    assert nothing(1, 2, key="x") == ((1, 2), "x") and opt("a", k=2) == "aa"
    with pytest.raises(TypeError): opt(s="a")
    with pytest.raises(TypeError, match="positional"): counter(1)
