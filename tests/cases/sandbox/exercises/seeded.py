#%% right OK
import random
def roll(): return [random.randint(1, 6) for _ in range(5)]
#%% wrong
def roll(): return [6, 6, 6, 6, 6]
#%% tests
import random
from solution import roll
def test_seeded():
    random.seed(3)
    mine = [random.randint(1, 6) for _ in range(5)]
    random.seed(3)
    assert roll() == mine
