import array, os, socket

sent, pairs = 0, []
try:
    for _ in range(10):
        ours, theirs = socket.socketpair()
        pairs.append((ours, theirs))
        ours.setblocking(False)
        for _ in range(1000):
            ours.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [theirs.fileno()] * 200))])
            sent += 200
except OSError:
    pass
print("held" if sent < 1_000_000 else f"escaped: {sent} in flight")
