import atexit, sys
atexit.register(print, "still called")
atexit.register(lambda: sys.exit(7))
print("main")
