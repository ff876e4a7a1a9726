import os, sys

for path in (sys.executable, os.__file__, "/etc/passwd", "/usr/lib", "/usr/bin/env", "/dev/null", "/dev", "/", "/etc"):
    for act in (
        lambda: os.chmod(path, 0o777), lambda: os.chown(path, os.getuid(), -1), lambda: os.utime(path),
        lambda: os.rename(path, path + "x"), lambda: os.symlink("x", path + "/x"), lambda: os.mkdir(path + "/x"),
        lambda: os.truncate(path, 0) if path != "/dev/null" else os.unlink(path),
    ):
        try:
            act()
            print("escaped: changed", path)
        except OSError:
            pass
print("held")
