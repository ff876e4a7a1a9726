import os

os.makedirs("closed/inner")
open("closed/inner/file", "w").write("x")
os.symlink(".", "loop")
os.symlink("loop2", "loop1")
os.symlink("loop1", "loop2")
os.symlink("/proc/self/root/etc/passwd", "magic")
os.symlink("/proc/1/root", "root")
open("plain", "w").write("x")
os.chmod("plain", 0)
os.chmod("closed/inner", 0)
os.chmod("closed", 0)
print("held")
