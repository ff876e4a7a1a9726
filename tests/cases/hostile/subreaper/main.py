import ctypes, os, signal, time

libc = ctypes.CDLL(None)
libc.prctl(36, 1, 0, 0, 0)  # become a subreaper
libc.prctl(1, 0, 0, 0, 0)  # no signal at the parent's death
if os.fork() == 0:
    for _ in range(8):
        if os.fork() == 0:
            os.setsid()
            for number in range(1, 65):
                try:
                    signal.signal(number, signal.SIG_IGN)
                except (OSError, ValueError):
                    pass
            os.close(1)
            os.close(2)
            time.sleep(600)
    os._exit(0)
os.wait()
print("held")
