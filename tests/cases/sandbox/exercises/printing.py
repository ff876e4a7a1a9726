#%% right OK
import sys
def greet(name):
    print("hello", name)
    sys.stdout.write("bye\n")
def shout(text): print(text.upper(), end="")
#%% wrong
def greet(name): return "hello " + name
def shout(text): print(text)
#%% tests
import contextlib, io
from solution import greet, shout
def test_printed(capsys):
    greet("you")
    assert capsys.readouterr().out == "hello you\nbye\n"
    shout("a")
    shout("b")
    assert capsys.readouterr().out == "AB"
def test_redirected():
    text = io.StringIO()
    with contextlib.redirect_stdout(text): greet("me")
    assert text.getvalue().startswith("hello me")
