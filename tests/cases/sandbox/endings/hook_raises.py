import sys
def hook(*_):
    raise ValueError("in the hook")
sys.excepthook = hook
raise KeyError("x")
