import os

allowed = {"/box", "/tmp", "/dev/shm", os.getcwd()}
for folder, folders, _ in os.walk("/"):
    if folder in allowed or folder.startswith(("/proc/", os.getcwd() + "/")):
        folders.clear()
        continue
    if folder.count("/") > 3:
        folders.clear()
    try:
        with open(f"{folder}/escaped", "w"):
            print("escaped: wrote", folder)
    except OSError:
        pass
print("held")
