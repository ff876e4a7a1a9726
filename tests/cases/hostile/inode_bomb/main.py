import itertools, os

for number in itertools.count():
    os.close(os.open(f"/tmp/{number}", os.O_CREAT | os.O_WRONLY))
