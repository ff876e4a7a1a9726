import sys
out = []
def print(*a, sep=" ", end="\n"):
    out.append(sep.join(map(str, a)) + end)
for i in range(3):
    print(i, i * i)
sys.stdout.write("".join(out))
