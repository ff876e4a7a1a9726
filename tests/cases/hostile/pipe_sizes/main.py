import fcntl, os

for size in (1 << 20, 1 << 30, 4096):
    for stream in (1, 2):
        try:
            fcntl.fcntl(stream, 1031, size)  # F_SETPIPE_SZ
        except OSError:
            pass
os.set_blocking(1, False)
os.write(1, b"xxxxx\n")
try:
    fcntl.fcntl(1, fcntl.F_SETFL, os.O_APPEND | os.O_NONBLOCK | os.O_DIRECT)
except OSError:
    pass
