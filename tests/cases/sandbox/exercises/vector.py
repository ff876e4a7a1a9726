#%% right OK
class V:
    def __init__(self, x, y=0): self.x, self.y = x, y
    def __add__(self, o): return V(self.x + o.x, self.y + o.y)
    def __sub__(self, o): return V(self.x - o.x, self.y - o.y)
    def __mul__(self, k): return V(self.x * k, self.y * k) if isinstance(k, (int, float)) else self.x * k.x + self.y * k.y
    __rmul__ = __mul__
    def __neg__(self): return V(-self.x, -self.y)
    def __abs__(self): return (self.x ** 2 + self.y ** 2) ** 0.5
    def __eq__(self, o): return isinstance(o, V) and (self.x, self.y) == (o.x, o.y)
    def __lt__(self, o): return abs(self) < abs(o)
    def __hash__(self): return hash((self.x, self.y))
    def __iadd__(self, o): self.x += o.x; self.y += o.y; return self
    def __getitem__(self, i): return (self.x, self.y)[i]
    def __len__(self): return 2
    def __iter__(self): return iter((self.x, self.y))
    def __contains__(self, k): return k in (self.x, self.y)
    def __bool__(self): return bool(self.x or self.y)
    def __repr__(self): return f"V({self.x}, {self.y})"
    def __format__(self, spec): return f"<{self.x:{spec}}, {self.y:{spec}}>"
    def __call__(self, k): return self.x * k
#%% wrong
class V:
    def __init__(self, x, y=0): self.x, self.y = x, y
    def __add__(self, o): return V(self.x + o.x, 0)
    def __sub__(self, o): return V(self.x - o.x, self.y - o.y)
    def __eq__(self, o): return (self.x, self.y) == (o.x, o.y)
#%% tests
import copy
from solution import V

def test_operators():
    assert V(1) + V(2) == V(3)
    assert V(1, 2) - V(1, 1) == V(0, 1)
    assert V(1, 1) + V(1, 1) == V(2, 2) and V(1) != V(2)
    assert V(1, 2) * V(3, 4) == 11
    assert V(1, 2) * 2 == V(2, 4) and 2 * V(1, 2) == V(2, 4)
    assert -V(1, 2) == V(-1, -2) and abs(V(3, 4)) == 5.0
    assert V(1) < V(2) and V(2) > V(1) and not V(2) < V(1)
    assert sorted([V(2), V(1)])[0] == V(1) and max(V(1), V(5)).x == 5

def test_containers():
    assert len({V(1), V(1), V(2)}) == 2 and {V(1): "a"}[V(1)] == "a"
    assert V(1, 2)[1] == 2 and len(V(1)) == 2 and list(V(1, 2)) == [1, 2] and tuple(V(1, 2)) == (1, 2)
    assert 2 in V(1, 2) and 3 not in V(1, 2) and V(1) in [V(0), V(1)]
    assert V(1, 2)[0:2] == (1, 2)
    x, y = V(5, 6)
    assert (x, y) == (5, 6)

def test_the_rest():
    v = w = V(1, 1)
    v += V(1, 2)
    assert v is w and w == V(2, 3)
    assert not V(0) and V(1)
    assert repr(V(1, 2)) == "V(1, 2)" and str(V(1)) == "V(1, 0)" and f"{V(1, 2):.1f}" == "<1.0, 2.0>"
    assert V(3)(2) == 6 and hash(V(1)) == hash(V(1))
    c = copy.deepcopy(v)
    c.x = 9
    assert v.x == 2 and c.x == 9
    del c.y
    assert not hasattr(c, "y") and hasattr(v, "y")
