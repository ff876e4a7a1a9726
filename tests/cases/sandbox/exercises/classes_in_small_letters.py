#%% right OK
class node:
    def __init__(self, v): self.v = v
    def __eq__(self, o): return isinstance(o, node) and self.v == o.v
    def __add__(self, k): return node(self.v + k)
class my_error(Exception): pass
def fail(): raise my_error("no")
def make(v): return node(v)
class account:
    rate = 2
    @classmethod
    def open(cls): return cls()
#%% wrong
class node:
    def __init__(self, v): self.v = v
class my_error(Exception): pass
def fail(): raise my_error("no")
def make(v): return node(v)
class account: pass
#%% tests
import pytest
from solution import account, fail, make, my_error, node
def test():
    assert node(1) == make(1) and isinstance(make(1), node) and node(1).v == 1
    assert node(1) + 2 == node(3)
    with pytest.raises(my_error, match="no"): fail()
    assert account.rate == 2 and isinstance(account.open(), account)
    account.rate = 5
    assert account().rate == 5
