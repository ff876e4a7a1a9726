import functools
class Last:
    def __del__(self):
        print("cache gone")
@functools.lru_cache(None)
def make():
    return Last()
make()
