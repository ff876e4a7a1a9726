#%% right OK
RATE = 2
def rate(): return RATE
def price(x): return x * rate()
#%% wrong
RATE = 2
def rate(): return 2
def price(x): return x * 2
#%% tests
import solution
def test_replaced(monkeypatch):
    monkeypatch.setattr(solution, "rate", lambda: 10)
    assert solution.price(3) == 30
def test_put_back():
    assert solution.price(3) == 6
def test_constant(monkeypatch):
    monkeypatch.setattr(solution, "RATE", 5)
    assert solution.price(2) == 10
