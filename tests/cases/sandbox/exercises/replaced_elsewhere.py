#%% right INFRASTRUCTURE_ERROR
import time
def age(born): return time.gmtime(time.time()).tm_year - born
#%% wrong
def age(born): return 0
#%% tests
import time
from solution import age
def test_replaced(monkeypatch):
    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert age(1960) == 10
