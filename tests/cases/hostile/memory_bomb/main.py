hoard = []
while True:
    hoard.append(b"x" * (1 << 20))
