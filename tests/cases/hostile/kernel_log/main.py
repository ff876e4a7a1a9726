import os

for path in (
    "/dev/kmsg", "/proc/kmsg", "/proc/kcore", "/proc/kallsyms", "/proc/keys", "/proc/key-users", "/proc/sysrq-trigger",
    "/proc/sys/kernel/core_pattern", "/proc/sys/kernel/hostname", "/proc/config.gz", "/proc/modules", "/proc/interrupts",
    "/proc/timer_list", "/proc/1/environ", "/proc/1/mem", "/sys/kernel/debug", "/sys/fs/cgroup", "/dev/mem", "/dev/fuse",
    "/dev/kvm", "/dev/net/tun", "/dev/vda", "/dev/sda", "/dev/loop-control", "/dev/ptmx", "/dev/console", "/dev/input",
):
    for flags in (os.O_RDONLY, os.O_WRONLY):
        try:
            os.close(os.open(path, flags | os.O_NONBLOCK))
            print("escaped: opened", path)
        except OSError:
            pass
print("held")
