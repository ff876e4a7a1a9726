#%% right OK
def sort(items, *, reverse=False): items.sort(reverse=reverse); return items
def fill(*, into, value): into[:] = [value] * len(into)
def add(table, key): table.setdefault(key, []).append(1); return table
def rotate(matrix):
    matrix[:] = [list(row) for row in zip(*matrix[::-1])]
def drop(items):
    items.pop()
    raise ValueError("dropped")
def deep(rows): rows[0].append(5)
#%% wrong
def sort(items, *, reverse=False): return sorted(items, reverse=reverse)
def fill(*, into, value): return [value] * len(into)
def add(table, key): return {**table, key: [1]}
def rotate(matrix): pass
def drop(items): raise ValueError("dropped")
def deep(rows): pass
#%% tests
import pytest
from collections import deque
from solution import add, deep, drop, fill, rotate, sort
def test_changes():
    l = [3, 1, 2]
    assert sort(l) is l and l == [1, 2, 3]
    assert sort(items=l, reverse=True) is l and l == [3, 2, 1]
    fill(into=l, value=0)
    assert l == [0, 0, 0]
    t = {}
    assert add(t, "a") is t and t == {"a": [1]}
    m = [[1, 2], [3, 4]]
    assert rotate(m) is None and m == [[3, 1], [4, 2]]
    x = [1, 2]
    with pytest.raises(ValueError): drop(x)
    assert x == [1]
    inner = []
    deep([inner])
    assert inner == [5]
