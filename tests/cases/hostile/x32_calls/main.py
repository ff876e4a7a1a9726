import ctypes

libc = ctypes.CDLL(None, use_errno=True)
if libc.syscall(0x40000000 + 39) >= 0 or libc.syscall(0x40000000 + 165, b"none", b"/tmp", b"tmpfs", 0, None) >= 0:
    print("escaped")
print("held")
