#%% right OK
from collections import Counter, OrderedDict, defaultdict, deque
def letters(text): return Counter(text)
def groups(words):
    found = defaultdict(list)
    for word in words: found[len(word)].append(word)
    return found
def last(items): return deque(items, maxlen=2)
#%% wrong
def letters(text): return {}
def groups(words): return {}
def last(items): return items
#%% tests
from collections import Counter, deque
from solution import groups, last, letters
def test_counters():
    assert letters("aab") == {"a": 2, "b": 1} and letters("aab").most_common(1) == [("a", 2)]
    assert letters("ab") + Counter("b") == Counter("abb") and letters("a")["z"] == 0
    assert groups(["a", "bb", "c"]) == {1: ["a", "c"], 2: ["bb"]}
    assert last([1, 2, 3]) == deque([2, 3]) and last([1, 2, 3]).maxlen == 2
