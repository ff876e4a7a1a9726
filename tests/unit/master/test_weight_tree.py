"""The tree that the fleet forms: bounded fan-out at every node, and few who move."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from services.master.weight_tree import FAN_OUT, Node, joined, left, sources

TRAINER = "trainer"


def tree_of(*names: str) -> list[Node]:
    nodes: list[Node] = []
    for name in names:
        nodes = joined(nodes, Node(name, name.upper(), is_relay=name.startswith("r")))
    return nodes


def parents(nodes: list[Node]) -> dict[str, str]:
    return {node.worker_id: sources(nodes, node.worker_id, TRAINER)[0] for node in nodes}


def test_a_small_fleet_by_hand() -> None:
    assert parents(tree_of("a", "b", "c", "d", "e")) == {"a": TRAINER, "b": "A", "c": "A", "d": "B", "e": "B"}
    assert sources(tree_of("a", "b", "c", "d"), "d", TRAINER) == ["B", "A", TRAINER]


def test_who_serves_nothing_on_asks_the_trainer() -> None:
    assert sources(tree_of("a", "b"), "stranger", TRAINER) == [TRAINER]


def test_a_relay_goes_above_the_workers() -> None:
    nodes = tree_of("a", "b", "r1", "c", "r2")
    assert [node.worker_id for node in nodes] == ["r1", "r2", "a", "c", "b"]
    assert parents(nodes) == {"r1": TRAINER, "r2": "R1", "a": "R1", "c": "R2", "b": "R2"}


def test_the_last_leaf_takes_the_place_of_one_that_leaves() -> None:
    before, after = tree_of("a", "b", "c", "d", "e", "f"), left(tree_of("a", "b", "c", "d", "e", "f"), "b")
    moved = {name for name, parent in parents(after).items() if parents(before)[name] != parent}
    assert moved == {"d", "e", "f"}  # b's children, and the leaf that took its place
    assert parents(after)["f"] == "A"


def test_joining_again_changes_the_address_and_not_the_place() -> None:
    nodes = joined(tree_of("a", "b", "c", "d"), Node("b", "B2"))
    assert parents(nodes)["d"] == "B2"


@given(st.lists(st.tuples(st.booleans(), st.sampled_from(["a", "b", "c", "d", "e", "f", "r1", "r2", "r3"]))))
def test_whoever_comes_and_goes_the_tree_is_one_and_its_fan_out_bounded(changes: list[tuple[bool, str]]) -> None:
    nodes: list[Node] = []
    present: set[str] = set()
    for joins, name in changes:
        if joins:
            nodes = joined(nodes, Node(name, name.upper(), is_relay=name.startswith("r")))
            present.add(name)
        else:
            nodes = left(nodes, name)
            present.discard(name)
        children = Counter(parents(nodes).values())
        assert {node.worker_id for node in nodes} == present
        assert len(nodes) == len(present)
        assert children[TRAINER] == (1 if nodes else 0)
        assert all(count <= FAN_OUT for count in children.values())
        assert all(sources(nodes, name, TRAINER)[-1] == TRAINER for name in present)
        relays = [node.is_relay for node in nodes]
        assert relays == sorted(relays, reverse=True)
