import ctypes
print("python")
ctypes.CDLL(None).printf(b"c library\n")
