#%% right INFRASTRUCTURE_ERROR
class R:
    def __init__(self, n, d): self.n, self.d = n, d
    def __eq__(self, o): return self.n / self.d == (o.n / o.d if isinstance(o, R) else o)
#%% wrong
class R:
    def __init__(self, n, d): self.n, self.d = n, d
    def __eq__(self, o): return False
#%% tests
from solution import R
def test_plain(): assert R(1, 2) == 0.5
