#%% right INFRASTRUCTURE_ERROR
class Money:
    def __init__(self, n): self.amount = n
    def __add__(self, o): return Money(self.amount + (o.amount if isinstance(o, Money) else o))
    def __eq__(self, o): return self.amount == o.amount
ZERO = Money(0)
class Wallet:
    total = Money(7)
#%% wrong
class Money:
    def __init__(self, n): self.amount = n
ZERO = Money(0)
class Wallet:
    total = Money(8)
#%% tests
from solution import Wallet, ZERO
def test_add(): assert ZERO + 7 == Wallet().total
