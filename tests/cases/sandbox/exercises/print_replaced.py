#%% right OK
def show(*a): print(*a)
#%% wrong
def show(*a): print("x")
#%% tests
from unittest.mock import patch, call
from solution import show
def test_show():
    with patch("builtins.print") as p: show(1, "a")
    p.assert_called_once_with(1, "a")
@patch("builtins.print")
def test_deco(p):
    show(2); show(3)
    assert p.call_args_list == [call(2), call(3)]
