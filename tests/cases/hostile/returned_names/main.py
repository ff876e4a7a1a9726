import os

for name in (b"\xff\xfe", b"new\nline", b" blank ", "\u00fc".encode(), b"[x]", b"-rf", b"a" * 255):
    with open(name, "wb") as file:
        file.write(b"x")
os.mkdir(b"\xff")if False else os.mkdir(b"\xfd")
open(b"\xfd/inner", "wb").close()
os.makedirs("closed/in")
open("closed/in/x", "w").close()
os.chmod("closed", 0)
print("held")
