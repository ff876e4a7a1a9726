#%% right OK
class Account:
    count = 0
    log = []
    def __init__(self, owner):
        Account.count += 1
        Account.log.append(owner)
        self._balance = 0
    @property
    def balance(self): return self._balance
    @balance.setter
    def balance(self, value):
        if value < 0: raise ValueError("negative")
        self._balance = value
    @classmethod
    def reset(cls): cls.count = 0; return cls
    @staticmethod
    def twice(x): return 2 * x
total = 0
def add(n):
    global total
    total += n
#%% wrong
class Account:
    count = 0
    log = []
    def __init__(self, owner): self.balance = 0
    @classmethod
    def reset(cls): return None
    @staticmethod
    def twice(x): return 2 * x
total = 0
def add(n): pass
#%% tests
import pytest
import solution
from solution import Account, add
def test_attributes():
    assert Account.count == 0
    a = Account("me")
    assert Account.count == 1 and a.count == 1 and Account.log == ["me"]
    Account.count = 10
    Account("you")
    assert Account.count == 11
    assert Account.reset() is Account and Account.count == 0 and Account.twice(4) == 8
    a.balance = 5
    a.balance += 1
    assert a.balance == 6
    with pytest.raises(ValueError): a.balance = -1
    with pytest.raises(AttributeError): a.nothing
def test_globals():
    add(3)
    assert solution.total == 3
    solution.total = 10
    add(1)
    assert solution.total == 11
