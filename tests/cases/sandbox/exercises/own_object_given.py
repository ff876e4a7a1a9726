#%% right INFRASTRUCTURE_ERROR
def total(order): return sum(order.prices)
#%% wrong
def total(order): return 0
#%% tests
from solution import total
class Order:
    prices = [1, 2]
def test_total(): assert total(Order()) == 3
