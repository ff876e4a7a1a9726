import gc, re

mark = b"".join([b"loot", b"-", b"7f3a"])
found = 0
for line in open("/proc/self/maps"):
    span, rights, *_ = line.split()
    if "r" not in rights or "[v" in line:
        continue
    start, end = (int(part, 16) for part in span.split("-"))
    with open("/proc/self/mem", "rb", 0) as memory:
        try:
            memory.seek(start)
            found += len(re.findall(re.escape(mark) + b"-[0-9]{6}", memory.read(end - start)))
        except (OSError, OverflowError, ValueError):
            pass
print("escaped: found", found) if found else print("held")
