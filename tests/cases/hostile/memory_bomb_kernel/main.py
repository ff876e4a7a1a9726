import os, resource, socket

resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
for _ in range(40):
    if os.fork() == 0:
        break
kept = []
while True:
    try:
        one, two = socket.socketpair()
        kept += [one, two]
        one.setblocking(False)
        two.setblocking(False)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 24)
        two.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 24)
        while True:
            one.send(b"x" * 65536)
            two.send(b"x" * 65536)
    except BlockingIOError:
        pass
    except OSError:
        os.kill(os.getpid(), 9)
