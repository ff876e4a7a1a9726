import contextlib
@contextlib.contextmanager
def place():
    print("in")
    try:
        yield
    finally:
        print("out")
c = place()
c.__enter__()
