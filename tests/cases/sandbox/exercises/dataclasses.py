#%% right OK
from dataclasses import dataclass, field
@dataclass(order=True)
class Item:
    name: str
    price: float = 1.0
    tags: list = field(default_factory=list)
@dataclass(frozen=True)
class Key:
    a: int
def cheapest(items): return min(items, key=lambda item: item.price)
#%% wrong
class Item:
    def __init__(self, name, price=1.0, tags=()): self.name, self.price, self.tags = name, price, tags
class Key:
    def __init__(self, a): self.a = a
def cheapest(items): return items[0]
#%% tests
import pytest
from solution import Item, Key, cheapest
def test_items():
    a, b = Item("a", 3.0), Item("b", 2.0, ["x"])
    assert cheapest([a, b]) is b and cheapest([a, b]).tags == ["x"]
    assert Item("a") == Item("a", 1.0, []) and Item("a") != Item("b") and Item("a") < Item("b")
    assert repr(Item("a")) == "Item(name='a', price=1.0, tags=[])"
    b.tags.append("y")
    assert len({Key(1), Key(1)}) == 1
    with pytest.raises(AttributeError): Key(1).a = 2
