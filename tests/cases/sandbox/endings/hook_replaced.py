import sys
sys.excepthook = lambda kind, error, frames: print("hook", kind.__name__)
raise KeyError("x")
