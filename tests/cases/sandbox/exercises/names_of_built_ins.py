#%% right OK
def filter(function, items): return [x for x in items if function(x)]
def map(function, items): return [function(x) for x in items]
def reversed(items): return items[::-1]
def sum(items): return len(items)
def len(items): return 0
#%% wrong
def filter(function, items): return []
def map(function, items): return items
def reversed(items): return items
def sum(items): return 0
def len(items): return 1
#%% tests
from solution import filter, map, reversed
from solution import len as own_len, sum as own_sum
def test_lists():
    assert filter(lambda x: x % 2, [1, 2, 3]) == [1, 3]
    assert map(str, [1, 2]) == ["1", "2"]
    assert reversed([1, 2]) == [2, 1]
    assert own_len([1]) == 0 and len([1]) == 1 and sum([1, 2]) == 3
