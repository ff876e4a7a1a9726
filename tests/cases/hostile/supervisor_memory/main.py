import ctypes, os, signal

parent = os.getppid() or 1
for pid in (1, parent):
    for name, mode in (("mem", "r+b"), ("mem", "rb"), ("maps", "rb"), ("environ", "rb"), ("auxv", "rb"), ("stack", "rb")):
        try:
            open(f"/proc/{pid}/{name}", mode, 0).read(1)
            print("escaped: opened", pid, name)
        except OSError:
            pass
    for folder in ("fd", "map_files", "fdinfo", "ns"):
        try:
            for name in os.listdir(f"/proc/{pid}/{folder}"):
                os.readlink(f"/proc/{pid}/{folder}/{name}")
                print("escaped: read link", pid, folder, name)
        except OSError:
            pass
    try:
        handle = os.pidfd_open(pid)
        signal.pidfd_send_signal(handle, signal.SIGKILL)
        if pid != 1:
            print("escaped: signalled", pid)
    except OSError:
        pass
print("held")
