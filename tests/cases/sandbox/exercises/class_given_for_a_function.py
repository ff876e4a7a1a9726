#%% right OK
def compose(f, g): return lambda x: f(g(x))
def near(x): return x
class Box:
    def __init__(self, v): self.v = v
    def __eq__(self, o): return isinstance(o, Box) and self.v == o.v
    def get(self): return self.v
#%% wrong
class Box:
    def __init__(self, *v): self.v = 1
    def __eq__(self, o): return True
    def __sub__(self, o): return 0
    def get(self): return self
near = Box
def compose(f, g): return Box
#%% wrong
class _N:
    def __init__(self, *v): self.v = 1
    def __sub__(self, o): return 0
    def __eq__(self, o): return True
class compose:
    def __init__(self, f, g): pass
    __call__ = _N
class Box(_N): pass
near = _N
#%% tests
import pytest
from solution import Box, compose, near
def test_box(): assert Box(1) == Box(1)
def test_near(): assert abs(near(2.5) - 2.5) < 1e-6
def test_compose(): assert abs(compose(abs, int)("-3") - 3) < 1e-6
