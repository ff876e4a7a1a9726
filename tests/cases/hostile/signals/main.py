import ctypes, os, signal

libc = ctypes.CDLL(None, use_errno=True)
me = os.getpid()
for pid in (1, os.getppid(), -1, *range(1, 400)):
    if pid in (me, 0):
        continue
    for number in (signal.SIGCONT, signal.SIGINT, signal.SIGTERM, signal.SIGCHLD, signal.SIGKILL):
        try:
            os.kill(pid, number)
        except OSError:
            pass
print("held")
