import sys, threading
sys.setrecursionlimit(100000)
threading.stack_size(1 << 26)
def depth(n):
    return n if n == 20000 else depth(n + 1)
def main():
    print(depth(0))
    sys.stdout.write("from the thread")
thread = threading.Thread(target=main)
thread.start()
