import os
from multiprocessing import shared_memory

for folder in ("/tmp", "/dev/shm", "/box", "."):
    try:
        with open(f"{folder}/loot", "w") as file:
            file.write("loot")
    except OSError:
        pass
try:
    shared_memory.SharedMemory("loot", create=True, size=4096)
except OSError:
    pass
