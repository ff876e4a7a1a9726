import ctypes

libc = ctypes.CDLL(None, use_errno=True)
OPTIONS = {
    "keep capabilities": (8, 1), "secure bits": (28, 0), "ambient capability": (47, 2, 21), "move the program's memory": (35, 1, 4096),
    "who may trace": (0x59616D61, -1), "speculation": (53, 0, 2), "a filter": (22, 1), "core scheduling": (62, 1),
    "a time stamp counter": (26, 2), "system call dispatch": (59, 1), "io flusher": (57, 1),
}
for name, arguments in OPTIONS.items():
    if libc.prctl(*arguments, *[0] * (5 - len(arguments))) >= 0:
        print("escaped:", name)
libc.prctl(15, b"keeper")  # names are free
libc.prctl(38, 0, 0, 0, 0)
if libc.prctl(39, 0, 0, 0, 0) != 1:
    print("escaped: new privileges again")
print("held")
