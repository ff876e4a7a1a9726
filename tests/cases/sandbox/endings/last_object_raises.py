class Last:
    def __del__(self):
        raise ValueError("at the end")
last = Last()
print("main")
