import os, sys
pid = os.fork()
if pid == 0:
    f = open("left.txt", "w")
    f.write("flushed when the child ended")
    g = [f]
    def h(): return g
else:
    os.waitpid(pid, 0)
    print(open("left.txt").read())
