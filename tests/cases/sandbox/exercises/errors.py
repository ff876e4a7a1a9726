#%% right OK
class StackError(Exception):
    def __init__(self, message, depth):
        super().__init__(message)
        self.depth = depth
class EmptyError(StackError): pass
class Worded(ValueError):
    def __str__(self): return "worded: " + str(self.args[0])
def pop(): raise EmptyError("the stack is empty", 0)
def look(key): raise KeyError(key)
def many(): raise ValueError("one", 2)
def worded(): raise Worded("x")
def chained():
    try: look("k")
    except KeyError as error: raise RuntimeError("outer") from error
def opened(): open("/nowhere/at/all")
def text(): return "é".encode("ascii")
#%% wrong
class StackError(Exception): pass
class EmptyError(StackError): pass
def pop(): raise StackError("the stack is empty")
def look(key): raise KeyError(key)
def many(): raise ValueError("one")
#%% tests
import pytest
from solution import EmptyError, StackError, chained, look, many, opened, pop, text, worded
def test_errors():
    with pytest.raises(StackError) as caught: pop()
    assert caught.value.args == ("the stack is empty",) and caught.value.args[0] == "the stack is empty"
    assert str(caught.value) == "the stack is empty" and caught.value.depth == 0 and caught.type is EmptyError
    assert issubclass(EmptyError, StackError) and issubclass(EmptyError, Exception) and not issubclass(StackError, EmptyError)
    with pytest.raises(KeyError) as caught: look("k")
    assert str(caught.value) == "'k'" and caught.value.args == ("k",)
    with pytest.raises(ValueError) as caught: many()
    assert caught.value.args == ("one", 2)
    with pytest.raises(ValueError, match="^worded: x$"): worded()
    with pytest.raises(RuntimeError) as caught: chained()
    assert isinstance(caught.value.__cause__, KeyError)
    with pytest.raises(FileNotFoundError) as caught: opened()
    assert caught.value.errno == 2
    with pytest.raises(UnicodeEncodeError): text()
