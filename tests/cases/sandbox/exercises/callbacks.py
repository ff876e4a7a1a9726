#%% right OK
def safe(f, default=None):
    try: return f()
    except ZeroDivisionError: return default
    except LookupError as error: return error.args[0]
def passed_on(f, *args, **kwargs): return f(*args, **kwargs)
def same(f): return f
def take(iterator, n): return [next(iterator) for _ in range(n)]
def apply_all(functions, x): return [f(x) for f in functions]
def convert(kind, text): return kind(text) if isinstance(kind, type) else None
class Button:
    def __init__(self): self.handlers = []
    def on(self, f): self.handlers.append(f)
    def off(self, f): self.handlers.remove(f)
    def press(self):
        for f in self.handlers: f(self)
#%% wrong
def safe(f, default=None): return f()
def passed_on(f, *args, **kwargs): return f(*args)
def same(f): return None
def take(iterator, n): return list(iterator)
#%% tests
import itertools, operator
import pytest
from solution import Button, apply_all, convert, passed_on, safe, same, take
class Own(Exception): pass
def test_callbacks():
    assert safe(lambda: 1 / 0, 7) == 7
    def lookup(): raise KeyError("key")
    assert safe(lookup) == "key"
    def own(): raise Own("mine")
    with pytest.raises(Own, match="mine"): safe(own)
    assert passed_on(lambda a, *, b: a - b, 5, b=2) == 3
    assert passed_on(operator.add, 1, 2) == 3 and passed_on(max, [1, 3]) == 3 and passed_on(str.upper, "a") == "A"
    assert same(own) is own
    assert take(itertools.count(5), 3) == [5, 6, 7]
    numbers = iter([1, 2, 3])
    assert take(numbers, 1) == [1] and next(numbers) == 2
    assert apply_all([abs, lambda x: x * 2], -3) == [3, -6]
    assert convert(int, "12") == 12 and convert(kind=float, text="1.5") == 1.5
def test_events():
    seen = []
    button = Button()
    handler = lambda b: seen.append(b is button)
    button.on(handler)
    button.press()
    button.off(handler)
    button.press()
    assert seen == [True]
