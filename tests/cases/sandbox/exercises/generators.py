#%% right OK
def numbers(n):
    for i in range(n):
        got = yield i
        if got: yield got * 10
class Countdown:
    def __init__(self, n): self.n = n
    def __iter__(self): return self
    def __next__(self):
        if self.n == 0: raise StopIteration
        self.n -= 1
        return self.n + 1
#%% wrong
def numbers(n): return list(range(n))
class Countdown:
    def __init__(self, n): self.n = n
    def __iter__(self): return iter(range(self.n))
#%% tests
import types
import pytest
from solution import Countdown, numbers
def test_generators():
    g = numbers(3)
    assert isinstance(g, types.GeneratorType) and iter(g) is g
    assert next(g) == 0 and g.send(5) == 50 and next(g) == 1 and list(g) == [2]
    with pytest.raises(StopIteration): next(g)
    assert 2 in numbers(5) and 7 not in numbers(5) and sum(numbers(4)) == 6
    assert list(Countdown(3)) == [3, 2, 1] and next(Countdown(9)) == 9
