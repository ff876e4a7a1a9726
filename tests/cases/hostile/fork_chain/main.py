import os

while os.fork() == 0 or os.wait():
    for _ in range(200000):
        pass
    if os.fork():
        os._exit(0)
