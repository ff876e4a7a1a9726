class Last:
    def __del__(self):
        print("frame gone")
def f():
    last = Last()
    raise KeyError("x")
f()
