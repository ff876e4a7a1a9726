import ctypes, os, select, signal

libc = ctypes.CDLL(None, use_errno=True)
signal.pthread_sigmask(signal.SIG_BLOCK, range(34, 64))
for _ in range(20000):
    libc.sigqueue(os.getpid(), 40, 0)
timer = ctypes.c_void_p()
for _ in range(20000):
    if libc.timer_create(1, None, ctypes.byref(timer)):
        break
kept = []
try:
    for _ in range(100000):
        kept.append(select.epoll())
except OSError:
    pass
try:
    while True:
        kept.append(libc.inotify_init())
        if kept[-1] < 0 or len(kept) > 100000:
            break
except OSError:
    pass
print("held")
os._exit(0) if os.write(1, b"") == 0 else None
