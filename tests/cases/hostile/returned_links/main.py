import os, socket

open("plain", "w").write("plain")
os.symlink("/etc/passwd", "link")
os.symlink("/etc", "folder_link")
os.symlink("/proc/self/environ", "magic")
os.symlink("plain", "link_inside")
os.symlink("loop", "loop")
os.mkfifo("fifo")
try:
    os.mknod("device", 0o20666, os.makedev(1, 5))
except OSError:
    pass
try:
    socket.socket(socket.AF_UNIX).bind("socket")
except OSError:
    pass
os.mkdir("folder")
open("folder/inner", "w").write("inner")
os.symlink("..", "folder/up")
print("held")
