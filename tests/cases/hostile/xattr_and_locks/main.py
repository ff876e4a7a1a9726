import os

for name in ("user.x", "trusted.x", "security.x"):
    try:
        os.setxattr("main.py", name, b"x" * 60000)
        print("escaped: set", name)
    except OSError:
        pass
print("held")
