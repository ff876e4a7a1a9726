#%% right OK
class Single:
    _one = None
    def __new__(cls):
        if cls._one is None: cls._one = super().__new__(cls)
        return cls._one
    def me(self): return self
def kind(): return int
def nothing(): return None
def first(items): return items[0]
#%% wrong
class Single:
    def me(self): return Single()
def kind(): return float
def nothing(): return 0
def first(items): return list(items[0])
#%% tests
from solution import Single, first, kind, nothing
def test_identity():
    assert Single() is Single() and Single().me() is Single() and kind() is int and nothing() is None
    s = Single()
    assert first([s, 1]) is s and s in [s] and [s].index(s) == 0
    assert bool(s) is True and callable(first)
