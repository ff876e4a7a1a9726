print(__name__, __doc__, __package__, __spec__, type(__loader__).__name__, __annotations__, __builtins__, __cached__)
print(sorted(name for name in globals()))
