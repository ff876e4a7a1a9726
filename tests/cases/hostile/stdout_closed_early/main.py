import os, time

os.write(1, b"held\n")
os.close(1)
os.close(2)
time.sleep(0.2)
os._exit(0)
