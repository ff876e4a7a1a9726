import sys
sys.excepthook = lambda *_: sys.exit(5)
raise KeyError("x")
