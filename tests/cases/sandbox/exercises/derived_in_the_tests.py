#%% right INFRASTRUCTURE_ERROR
class Shape:
    def area(self): raise NotImplementedError
    def describe(self): return f"area {self.area()}"
#%% wrong
class Shape:
    def describe(self): return "area"
#%% tests
from solution import Shape
class Square(Shape):
    def area(self): return 4
def test_square(): assert Square().describe() == "area 4"
