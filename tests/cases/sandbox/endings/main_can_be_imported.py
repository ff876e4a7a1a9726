import __main__, sys
x = 3
print(__main__.x, sys.modules["__main__"] is __main__)
