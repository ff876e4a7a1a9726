import time, os, ctypes

for clock in (time.CLOCK_REALTIME, time.CLOCK_MONOTONIC, time.CLOCK_BOOTTIME):
    try:
        time.clock_settime(clock, 0)
        print("escaped")
    except OSError:
        pass
print("held")
