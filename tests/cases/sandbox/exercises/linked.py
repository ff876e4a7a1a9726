#%% right OK
class Node:
    def __init__(self, value, next=None): self.value, self.next = value, next
class Linked:
    def __init__(self, items=()):
        self.head = None
        for item in items: self.head = Node(item, self.head)
    def __iter__(self):
        node = self.head
        while node: yield node.value; node = node.next
    def __len__(self): return sum(1 for _ in self)
    def __reversed__(self): return iter(list(self)[::-1])
#%% wrong
class Node:
    def __init__(self, value, next=None): self.value, self.next = value, next
class Linked:
    def __init__(self, items=()): self.head = None
    def __iter__(self): return iter(())
    def __len__(self): return 0
#%% tests
from solution import Linked, Node
def test_linked():
    l = Linked([1, 2, 3])
    assert list(l) == [3, 2, 1] and len(l) == 3 and list(reversed(l)) == [1, 2, 3]
    assert l.head.next.value == 2 and l.head.next is l.head.next and l.head.next.next.next is None
    a = Node(1)
    b = Node(2, a)
    assert b.next is a and b.next == a and a != b
    a.next = b
    assert a.next.next is a
