import os, subprocess

with open("libc.so.6", "wb") as file:
    file.write(b"\x7fELF" + b"\0" * 100)
subprocess.run(["/usr/bin/env", "true"], env={"LD_LIBRARY_PATH": os.getcwd(), "PATH": "/usr/bin"}, stderr=subprocess.DEVNULL)
with open("json.py", "w") as file:
    file.write("raise SystemExit('poisoned')")
with open("sitecustomize.py", "w") as file:
    file.write("print('poisoned')")
print("held")
