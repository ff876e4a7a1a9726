import os, glob

known = {"PATH", "HOME", "PWD", "LANG", "USER", "LOGNAME", "TMPDIR", "SHLVL", "_"}
for name in os.environ.keys() - known:
    print("escaped: inherited", name)
for path in glob.glob("/proc/[0-9]*/environ"):
    try:
        if b"HOSTILE_SECRET" in open(path, "rb").read():
            print("escaped: read", path)
    except OSError:
        pass
print("held")
