import os

if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        while True:
            os.write(1, b"")
    os._exit(0)
print("held", flush=True)
os._exit(0)
