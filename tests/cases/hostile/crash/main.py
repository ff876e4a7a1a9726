import ctypes, os

ctypes.string_at(0)
