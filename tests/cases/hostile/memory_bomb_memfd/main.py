import os

for number in range(64):
    file = os.memfd_create(str(number))
    for _ in range(32):
        os.write(file, b"x" * (1 << 20))
