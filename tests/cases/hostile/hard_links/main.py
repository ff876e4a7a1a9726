import os

for path in ("/etc/passwd", "/usr/bin/env", "/etc/shadow", "/proc/self/exe", "/dev/null"):
    try:
        os.link(path, "loot")
        print("escaped: linked", path)
    except OSError:
        pass
open("big", "wb").write(b"x" * (1 << 20))
for number in range(100):
    os.link("big", f"link{number}")
print("held")
