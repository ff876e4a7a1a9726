import sys, io, os, atexit
_out = io.BytesIO()
sys.stdout = type("Out", (), {"write": lambda self, s: _out.write(s.encode()), "flush": lambda self: None})()
atexit.register(lambda: os.write(1, _out.getvalue()))
print("by descriptor")
