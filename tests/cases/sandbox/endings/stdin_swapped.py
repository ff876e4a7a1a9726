import io, sys
sys.stdin = io.StringIO("7 8\n")
print(sum(map(int, input().split())), sys.__stdin__.readline())
