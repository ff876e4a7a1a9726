import os, time

for _ in range(10):
    if os.fork() == 0:
        os.setsid()
        while True:
            if os.fork():
                os._exit(0)
            os.setsid()
time.sleep(0.2)
print("held", flush=True)
os._exit(0)
