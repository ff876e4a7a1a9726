import signal

signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
with open("big", "wb") as file:
    file.truncate(1 << 40)
