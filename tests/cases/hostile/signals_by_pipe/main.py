import fcntl, os, signal

F_SETSIG = 10
for owner in (1, os.getppid(), -1):
    if owner == os.getpid():
        continue
    reader, writer = os.pipe()
    for descriptor in (reader, 0, 1, 2):
        try:
            fcntl.fcntl(descriptor, F_SETSIG, signal.SIGKILL)
            fcntl.fcntl(descriptor, fcntl.F_SETOWN, owner)
            fcntl.fcntl(descriptor, fcntl.F_SETFL, fcntl.fcntl(descriptor, fcntl.F_GETFL) | os.O_ASYNC)
        except OSError:
            pass
    os.write(writer, b"x")
os.write(1, b"held\n")
