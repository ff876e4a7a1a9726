import glob, os

wanted = [
    "/etc/shadow", "/etc/gshadow", "/etc/sudoers", "/etc/ssh/*", "/etc/ssl/private/*", "/root/.ssh/*", "/root/.bash*",
    "/root/.config/*", "/home/*", "/var/log/*", "/var/lib/*", "/var/run/*", "/run/*", "/srv/*", "/opt/*", "/boot/*",
    "/mnt/*", "/media/*", "/etc/hostname", "/etc/machine-id", "/.dockerenv", "/run/secrets/*", "/etc/resolv.conf",
    "/root/*.py", "/tmp/*", "/dev/shm/*", "/dev/sd*", "/dev/vd*", "/dev/mem", "/dev/kmsg", "/dev/kvm",
]
for pattern in wanted:
    for path in glob.glob(pattern):
        if os.path.realpath(path).startswith(os.getcwd()):
            continue
        try:
            if os.path.isdir(path):
                os.listdir(path)
                if path in ("/root/.pyenv",):
                    continue
                print("escaped: listed", path)
            else:
                open(path, "rb").read(1)
                print("escaped: read", path)
        except OSError:
            pass
for line in open("/etc/passwd"):
    if line.split(":")[0] not in ("root", "sandbox"):
        print("escaped: knows", line.strip())
print("held")
