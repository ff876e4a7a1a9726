class Last:
    def __del__(self):
        print("instance gone")
class Holder:
    x = Last()
print("main")
