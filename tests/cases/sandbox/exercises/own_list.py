#%% right OK
class Stack(list):
    def push(self, x): self.append(x); return self
    def peek(self): return self[-1]
class Named(str):
    def loud(self): return self.upper() + "!"
def make(): return Stack([1, 2])
def named(): return Named("ab")
#%% wrong
class Stack(list):
    def push(self, x): return self
    def peek(self): return self[0]
class Named(str):
    def loud(self): return self
def make(): return Stack()
def named(): return Named("")
#%% tests
from solution import Named, Stack, make, named
def test_lists():
    s = Stack()
    assert s.push(3).push(4) is s and s == [3, 4] and len(s) == 2 and s.peek() == 4 and s[0] == 3 and list(s) == [3, 4]
    assert make() == [1, 2] and make().peek() == 2 and make() + Stack([3]) == [1, 2, 3] and 2 in make()
    assert named() == "ab" and named().loud() == "AB!" and isinstance(named(), str) and named() + "c" == "abc"
