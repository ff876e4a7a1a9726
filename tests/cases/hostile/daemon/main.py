import os, signal, sys, time

for number in range(1, 64):
    try:
        signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError):
        pass
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.setpgid(0, 0)
        while True:
            time.sleep(0.01)
    os._exit(0)
time.sleep(0.1)
print("held")
