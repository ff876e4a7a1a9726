import os, time

for _ in range(8):
    if os.fork() == 0:
        hoard = b"x" * (40 << 20)
        time.sleep(30)
        os._exit(0)
while True:
    os.wait()
