#%% right OK
class Transaction:
    def __init__(self): self.log = []
    def __enter__(self): self.log.append("in"); return self
    def __exit__(self, kind, error, frames):
        self.log.append(f"{kind.__name__}: {error}" if kind else "out")
        return kind is KeyError
#%% wrong
class Transaction:
    def __init__(self): self.log = []
    def __enter__(self): return self
    def __exit__(self, *_): return True
#%% tests
import pytest
from solution import Transaction
def test_contexts():
    with Transaction() as t: pass
    assert t.log == ["in", "out"]
    with Transaction() as t: raise KeyError("k")
    assert t.log == ["in", "KeyError: 'k'"]
    with pytest.raises(ValueError):
        with Transaction() as t: raise ValueError("v")
    assert t.log[-1] == "ValueError: v"
