import os

seen = sorted(int(name) for name in os.listdir("/proc") if name.isdigit())
if any(pid not in (1, os.getpid()) for pid in seen):
    print("escaped: sees", seen)
for name in (
    "kcore", "kallsyms", "kmsg", "keys", "sched_debug", "timer_list", "sysrq-trigger", "modules", "iomem", "cmdline",
    "version", "net/unix", "net/tcp", "sys/kernel/core_pattern", "sys/kernel/hostname", "mounts_all", "config.gz", "swaps",
    "1/environ", "1/mem", "1/maps", "1/cwd/", "1/root/", "1/exe", "1/fd", "1/cmdline_", "1/syscall", "1/stack",
):
    try:
        path = f"/proc/{name}"
        os.listdir(path) if os.path.isdir(path) else open(path, "rb").read(16)
        if name.startswith(("net/", "self")):
            continue
        print("escaped: read", path)
    except OSError:
        pass
for path in ("/proc/sysrq-trigger", "/proc/sys/kernel/core_pattern", "/proc/1/oom_score_adj", "/proc/1/mem"):
    try:
        open(path, "r+b", 0).write(b"0")
        print("escaped: wrote", path)
    except OSError:
        pass
for folder in ("/sys", "/sys/fs/cgroup", "/sys/kernel", "/sys/class"):
    if os.path.isdir(folder) and os.listdir(folder):
        print("escaped: lists", folder)
print("held")
