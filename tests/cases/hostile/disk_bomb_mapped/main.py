import mmap, os

with open("big", "w+b") as file:
    file.truncate(48 << 20)
    memory = mmap.mmap(file.fileno(), 48 << 20)
    for at in range(0, 48 << 20, 4096):
        memory[at] = 1
raise SystemExit(1)
