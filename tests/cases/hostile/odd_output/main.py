import sys

sys.stdout.buffer.write(bytes(range(256)) + b"\0" * 3 + b"\xff\xfe\xed\xa0\x80")
