import os, socket, time

kept = []
for name in ("\0hostile-left", "/tmp/hostile-left"):
    try:
        one = socket.socket(socket.AF_UNIX)
        one.bind(name)
        one.listen()
        kept.append(one)
    except OSError:
        pass
if os.fork() == 0:
    os.setsid()
    time.sleep(100)
