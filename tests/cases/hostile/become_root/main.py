import ctypes, glob, os, subprocess

for act in (
    lambda: os.setuid(0), lambda: os.setgid(0), lambda: os.setresuid(0, 0, 0), lambda: os.setreuid(0, 0),
    lambda: os.setgroups([0]), lambda: os.chown("main.py", 0, 0), lambda: os.seteuid(0), lambda: os.setegid(0),
):
    try:
        act()
        print("escaped: became another")
    except OSError:
        pass
os.chmod("main.py", 0o6755)
for program in ("/usr/bin/su", "/usr/bin/mount", "/usr/bin/passwd", "/usr/bin/newgrp", "/usr/bin/sudo", "/usr/bin/chsh"):
    if os.path.exists(program):
        try:
            result = subprocess.run([program, "-c", "id -u"], capture_output=True, text=True, timeout=5)
            if result.stdout.strip() == "0":
                print("escaped:", program)
        except OSError:
            pass
try:
    text = open("/proc/self/status").read()
except OSError:
    text = ""
for line in text.splitlines():
    if line.startswith(("CapPrm", "CapEff", "CapAmb", "CapInh")) and int(line.split()[1], 16):
        print("escaped: holds", line)
    if line.startswith("NoNewPrivs") and line.split()[1] != "1":
        print("escaped: may gain privileges")
print("held")
