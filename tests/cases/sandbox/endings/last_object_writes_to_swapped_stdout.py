import io, sys
class Last:
    def __del__(self):
        print("where", type(sys.stdout).__name__)
last = Last()
sys.stdout = io.StringIO()
print("swallowed")
