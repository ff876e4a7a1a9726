import os

for act in (
    lambda: os.nice(-20), lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(50)),
    lambda: os.sched_setaffinity(0, {0}), lambda: os.setpriority(os.PRIO_USER, 0, -20),
    lambda: os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0)),
):
    try:
        act()
    except OSError:
        pass
while True:
    pass
