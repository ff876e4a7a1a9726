#%% right OK
import functools
def greet(name):
    """Greets."""
    return "hi " + name
def logged(f):
    @functools.wraps(f)
    def inner(*a, **k):
        inner.calls += 1
        return f(*a, **k)
    inner.calls = 0
    return inner
class Tool:
    """A tool."""
#%% wrong
def greet(name): return "hi " + name
def logged(f):
    def inner(*a): return f(*a)
    return inner
class Tool: pass
#%% tests
from solution import Tool, greet, logged
def test_names():
    assert greet.__name__ == "greet" and greet.__doc__ == "Greets." and Tool.__name__ == "Tool"
    assert Tool.__doc__ == "A tool." and Tool().__class__.__name__ == "Tool" and type(Tool()) is Tool
    def mine(x, y=1):
        "Mine."
        return x + y
    wrapped = logged(mine)
    assert wrapped(1, y=2) == 3 and wrapped.calls == 1
    assert wrapped.__name__ == "mine" and wrapped.__doc__ == "Mine."
