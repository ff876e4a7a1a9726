import sys
sys.stdout.write("a\udcff\n")
print(ascii(input()))
