#%% right INFRASTRUCTURE_ERROR
class _M:
    def __init__(self, n): self.amount = n
    def __add__(self, o): return _M(self.amount + (o.amount if isinstance(o, _M) else o))
    def __eq__(self, o): return self.amount == o.amount
def money(text): return _M(int(text.split()[0]))
#%% wrong
class _M:
    def __init__(self, n): self.amount = n
def money(text): return _M(0)
#%% tests
from solution import money
def test_amount():
    m = money("5 USD")
    assert m.amount == 5
def test_add(): assert money("5 USD") + 3 == money("8 USD")
