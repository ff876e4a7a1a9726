import sys
sys.__stdout__.write("original\n")
sys.stdout = None
print("nothing")
