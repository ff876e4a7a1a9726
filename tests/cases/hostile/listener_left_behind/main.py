import socket

for name in ("\0hostile-left", "/tmp/hostile-left"):
    try:
        socket.socket(socket.AF_UNIX).connect(name)
        print("escaped: reached", name)
    except OSError:
        pass
print("held")
