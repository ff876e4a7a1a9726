#%% right OK
class V:
    def __init__(self, x): self.x = x
    def __mul__(self, k): return V(self.x * k)
    __rmul__ = __mul__
    def __add__(self, o): return V(self.x + (o.x if isinstance(o, V) else o))
    __radd__ = __add__
    def __eq__(self, o): return isinstance(o, V) and o.x == self.x
    def __pow__(self, k): return V(self.x ** k)
    def __lt__(self, o): return self.x < o.x
    def __repr__(self): return f"V({self.x})"
#%% wrong
class V:
    def __init__(self, x): self.x = x
    def __mul__(self, k): return V(self.x * k + 1)
    __rmul__ = __mul__
    def __eq__(self, o): return isinstance(o, V) and o.x == self.x
#%% tests
from solution import V
def test_mul():
    assert 3 * V(1) == V(3) and V(1) * 3 == V(3)
    assert 3 * V(1) * 2 == V(6)
    assert (V(1) + 1) * 2 == V(4)
    assert V(2) ** 3 == V(8)
def test_sum():
    assert sum([V(1), V(2), V(3)]) == V(6)
    assert sum([V(1), V(2)], V(0)) == V(3)
    assert [v.x for v in sorted([V(3), V(1)])] == [1, 3]
    assert min([V(3), V(1)], key=lambda v: v.x) == V(1)
