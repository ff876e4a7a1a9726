#%% right OK
class Clock:
    def __init__(self, h, m=0): self.t = (h * 60 + m) % 1440
    def __add__(self, m): return Clock(0, self.t + m)
    def __sub__(self, m): return Clock(0, self.t - m)
    def __eq__(self, o): return self.t == o.t
    def __str__(self): return f"{self.t // 60:02}:{self.t % 60:02}"
    def __repr__(self): return f"Clock({self.t // 60}, {self.t % 60})"
#%% wrong
class Clock:
    def __init__(self, h, m=0): self.t = h * 60 + m
    def __add__(self, m): return Clock(0, self.t + m)
    def __sub__(self, m): return Clock(0, self.t - m)
    def __eq__(self, o): return self.t == o.t
    def __str__(self): return f"{self.t // 60:02}:{self.t % 60:02}"
    __repr__ = __str__
#%% tests
import unittest
from solution import Clock

class ClockTest(unittest.TestCase):
    def test_all(self):
        self.assertEqual(str(Clock(8, 0) + 3), "08:03")
        self.assertEqual(str(Clock(0, 3) - 4), "23:59")
        self.assertEqual(repr(Clock(12, 0)), "Clock(12, 0)")
        self.assertEqual(Clock(25, 0), Clock(1, 0))
        self.assertNotEqual(Clock(1, 0), Clock(2, 0))
