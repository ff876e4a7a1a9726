import resource, os

for name in dir(resource):
    if not name.startswith("RLIMIT_"):
        continue
    kind = getattr(resource, name)
    soft, hard = resource.getrlimit(kind)
    if hard == resource.RLIM_INFINITY:
        if name in ("RLIMIT_FSIZE", "RLIMIT_NOFILE", "RLIMIT_CPU", "RLIMIT_CORE", "RLIMIT_STACK"):
            print("escaped: unbounded", name)
        continue
    for pid, wanted in ((0, (hard, hard + 1)), (os.getppid(), (0, 0)), (1, (0, 0))):
        try:
            resource.prlimit(pid, kind, wanted)
            print("escaped: raised", name)
        except (OSError, ValueError):
            pass
for act in (lambda: os.nice(-5), lambda: os.setpriority(os.PRIO_PROCESS, 0, -20), lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))):
    try:
        act()
        print("escaped: priority")
    except OSError:
        pass
print("held")
