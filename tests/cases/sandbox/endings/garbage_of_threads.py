import threading
local = threading.local()
class Last:
    def __del__(self):
        print("local gone")
local.x = Last()
print("main")
