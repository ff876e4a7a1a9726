import ctypes, os

libc = ctypes.CDLL(None, use_errno=True)
USER, MOUNT = 0x10000000, 0x00020000
for flags in (USER, USER | MOUNT, MOUNT, 0x20000000, 0x40000000, 0x08000000, 0x04000000, 0x02000000, 0x80):
    if os.fork() == 0:
        done = libc.unshare(flags) == 0
        mounted = libc.mount(b"x", b"/tmp", b"tmpfs", 0, None) == 0
        root = libc.chroot(b"/tmp") == 0
        bound = libc.mount(b"/", b"/box", None, 4096, None) == 0
        if mounted or root or bound or (done and os.uname().release and flags != USER):
            print("escaped:", hex(flags), done, mounted, root, bound, flush=True)
        os._exit(0)
    os.wait()
clone = libc.syscall(56 if os.uname().machine == "x86_64" else 220, USER | MOUNT | 17, 0, 0, 0, 0)
if clone == 0:
    os._exit(0)
if clone > 0:
    print("escaped: cloned")
print("held")
