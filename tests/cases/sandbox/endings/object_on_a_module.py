import math
math.out = open(1, "w", closefd=False)
math.out.write("left on a module\n")
