f = open("left.txt", "w")
f.write("kept")
import atexit
atexit.register(lambda: print(repr(open("left.txt").read())))
