import os

zero = os.open("/dev/zero", os.O_RDONLY)
while True:
    os.sendfile(1, zero, None, 1 << 20) if False else os.write(1, bytes(1 << 20))
