#%% right OK
import math
def area(r): return math.pi * r * r
#%% wrong
def area(r): return 3 * r * r
#%% tests
import math
import unittest
import pytest
from solution import area
def test_area():
    assert area(1) == pytest.approx(3.14159, abs=1e-4) and math.isclose(area(2), 12.566370614359172)
    assert abs(area(1) - math.pi) < 1e-9 and round(area(1), 2) == 3.14
class T(unittest.TestCase):
    def test_area(self): self.assertAlmostEqual(area(1), 3.14159, places=4)
