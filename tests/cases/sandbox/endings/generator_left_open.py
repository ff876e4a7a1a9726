def numbers():
    try:
        yield 1
        yield 2
    finally:
        print("closed")
g = numbers()
print(next(g))
