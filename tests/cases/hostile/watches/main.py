import ctypes, fcntl, os, struct

libc = ctypes.CDLL(None, use_errno=True)
instances = 0
while instances < 100_000 and libc.inotify_init1(0) >= 0:
    instances += 1
os.closerange(3, 4096)
watch, watches = libc.inotify_init1(0), 0
for number in range(900):
    os.mkdir(f"folder{number}")
    watches += libc.inotify_add_watch(watch, f"folder{number}".encode(), 2) >= 0
locked = open("locked", "wb+")
for number in range(2_000):
    fcntl.lockf(locked, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, number * 2)
print("held" if instances < 100_000 else "escaped: instances without end")
