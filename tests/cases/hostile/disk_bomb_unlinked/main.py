import os

files = []
for number in range(300):
    file = open(f"file{number}", "wb", buffering=0)
    os.unlink(f"file{number}")
    for _ in range(4):
        file.write(b"x" * (1 << 20))
    files.append(file)
