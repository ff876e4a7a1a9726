import sys
print("main")
sys.exit([1, 2])
