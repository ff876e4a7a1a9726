import os

for path in ("/etc/shadow", "/root/.bashrc", "/root/.profile", "/root", "/proc/kcore", "/dev/mem", "/dev/kmsg"):
    try:
        open(path, "rb").read(1)
        print("escaped: read", path)
    except OSError:
        pass
print("held")
