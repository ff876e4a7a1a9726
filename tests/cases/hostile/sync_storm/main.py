import os, time

begin = time.monotonic()
for _ in range(10000):
    os.sync()
print("held" if time.monotonic() - begin < 5 else "escaped: synced")
