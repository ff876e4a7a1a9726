import sys

text = "loot-7f3a-123456" * 1000 + sys.stdin.read()
