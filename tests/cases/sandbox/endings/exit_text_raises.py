import sys
class Bad:
    def __str__(self):
        raise ValueError("no text")
print("main")
sys.exit(Bad())
