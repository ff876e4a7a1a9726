import os, sys

try:
    file = os.memfd_create("x", 0)
    with open("/usr/bin/env", "rb") as source:
        os.write(file, source.read())
    if os.fork() == 0:
        os.execve(file, ["env", "true"], {"PATH": "/usr/bin"})
    os.wait()
except OSError:
    pass
print("held")
