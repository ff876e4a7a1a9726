import os, sys
print(len(os.read(0, 100)), sys.stdin.read() == "")
