import atexit
atexit.register(print, "exit function")
print("main")
raise RuntimeError("it failed")
