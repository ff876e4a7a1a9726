import sys
sys.stdout = open(1, "w", closefd=False)
print("one")
out = open(1, "wb")
out.write(b"two\n")
