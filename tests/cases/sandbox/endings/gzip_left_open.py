import gzip, os
pid = os.fork()
if pid == 0:
    f = gzip.open("left.gz", "wt")
    f.write("text")
else:
    os.waitpid(pid, 0)
    try:
        print(gzip.open("left.gz", "rt").read())
    except EOFError:
        print("cut")
