#%% right OK
def ask():
    name = input("name? ")
    return int(input()) + len(name)
#%% wrong
def ask(): return 3
#%% tests
import builtins, io
from unittest.mock import patch
from solution import ask
def test_monkeypatched(monkeypatch):
    answers = iter(["ab", "40"])
    monkeypatch.setattr("builtins.input", lambda prompt="": next(answers))
    assert ask() == 42
def test_object(monkeypatch):
    monkeypatch.setattr(builtins, "input", lambda *_: "5")
    assert ask() == 6
def test_patched():
    with patch("builtins.input", side_effect=["abc", "1"]): assert ask() == 4
def test_stdin(monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.StringIO("abcd\n2\n"))
    assert ask() == 6
    assert capsys.readouterr().out == "name? "
