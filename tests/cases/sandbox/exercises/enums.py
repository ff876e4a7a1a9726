#%% right OK
from enum import Enum, IntEnum
class Colour(Enum):
    RED = "r"
    GREEN = "g"
    def mixed(self): return self.name + "!"
class Level(IntEnum):
    LOW = 1
    HIGH = 2
def favourite(): return Colour.GREEN
def level(n): return Level(n)
#%% wrong
from enum import Enum
class Colour(Enum):
    RED = "r"
    GREEN = "x"
class Level(Enum):
    LOW = 1
    HIGH = 2
def favourite(): return Colour.RED
def level(n): return Level.LOW
#%% tests
import pytest
from solution import Colour, Level, favourite, level
def test_enums():
    assert favourite() is Colour.GREEN and favourite() == Colour.GREEN != Colour.RED
    assert Colour("r") is Colour.RED and Colour["RED"].value == "r" and Colour.RED.name == "RED"
    assert len(Colour) == 2 and [c.value for c in Colour] == ["r", "g"] and Colour.RED in Colour
    assert Colour.GREEN.mixed() == "GREEN!" and isinstance(Colour.RED, Colour)
    assert level(2) == 2 and level(2) > level(1) and Level.HIGH.name == "HIGH" and level(1) is Level.LOW
    assert {Colour.RED: 1}[Colour.RED] == 1
    with pytest.raises(ValueError): Colour("z")
