import os

for descriptor in range(3, 4096):
    try:
        os.fstat(descriptor)
        print("escaped: inherited", descriptor, os.readlink(f"/proc/self/fd/{descriptor}"))
    except OSError:
        pass
opened = 0
try:
    while True:
        os.open("/dev/null", os.O_RDONLY)
        opened += 1
except OSError:
    pass
if opened > 4096:
    print("escaped: opened", opened)
print("held")
