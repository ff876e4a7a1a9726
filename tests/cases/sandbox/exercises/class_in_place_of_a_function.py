#%% right OK
def area(r): return 3.14159 * r * r
def primes(n): return [2, 3, 5, 7]
#%% wrong WRONG_ANSWER
class area:
    def __init__(self, r): pass
    def __sub__(self, o): return 0
    def __eq__(self, o): return True
def primes(n): return [2, 3, 5, 7]
#%% wrong WRONG_ANSWER
def area(r): return 3.14159 * r * r
class primes:
    def __init__(self, n): pass
    def __contains__(self, o): return True
#%% wrong WRONG_ANSWER
class primes:
    def __init__(self, n): pass
    def __contains__(self, o): return True
class Area:
    def __init__(self, r): pass
    def __sub__(self, o): return 0
    def __eq__(self, o): return True
def __getattr__(name): return Area
#%% tests
from solution import area, primes
def test_area(): assert abs(area(1) - 3.14159) < 1e-6
def test_primes(): assert 7 in primes(10)
