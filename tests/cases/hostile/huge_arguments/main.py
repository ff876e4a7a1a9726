import os, sys

for argv, env in (([b"x" * (1 << 22)], {}), ([b"x"] * 3_000_000, {}), ([b"x"], {b"a": b"x" * (1 << 22)})):
    try:
        os.execve("/usr/bin/env", argv, env)
    except OSError:
        pass
print("held")
