import os

for act in (lambda: os.write(0, b"x"), lambda: os.ftruncate(0, 1 << 30), lambda: open("/proc/self/fd/0", "r+b", 0).write(b"x")):
    try:
        act()
        print("escaped: wrote")
    except OSError:
        pass
print("held")
