import atexit, os
atexit.register(print, "never")
atexit.register(lambda: os._exit(3))
print("lost")
