#%% right OK
def area(r): return 3.0 * r * r
#%% wrong WRONG_ANSWER
class area:
    def __init__(self, r): pass
    def __eq__(self, o): return True
#%% wrong WRONG_ANSWER
class Same:
    def __eq__(self, o): return True
def area(r): return Same()
#%% tests
from solution import area
def test_area(): assert area(1) == 3.0
