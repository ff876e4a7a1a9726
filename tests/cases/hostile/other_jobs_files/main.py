import glob, os

for path in ("/tmp/loot", "/dev/shm/loot", "/box/loot", "loot", *glob.glob("/dev/shm/*"), *glob.glob("/dev/mqueue/*")):
    if os.path.exists(path):
        print("escaped: found", path)
print("held")
