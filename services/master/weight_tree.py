"""The fleet as a tree: who gets weight versions from whom. Plain functions of the order of its nodes.

Node number 0 gets them from the trainer, every other node n from node (n - 1) // FAN_OUT. So the trainer sends each
version once however many workers there are, and none sends it more than FAN_OUT times. Who joins is a leaf; where one
leaves, the last leaf takes its place: no other node moves but the children of both.

Left out: distances. Nodes of one region should stand together; here it is the order of joining that counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

FAN_OUT = 2


@dataclass(frozen=True)
class Node:
    """A member of the fleet that serves on what it receives."""

    worker_id: str
    address: str
    is_relay: bool = False  # it has nothing else to do; relays stand above workers


def joined(nodes: Sequence[Node], new: Node) -> list[Node]:
    """The order with one more; a node that is there already, and joins again, keeps its place."""
    if any(node.worker_id == new.worker_id for node in nodes):
        return [new if node.worker_id == new.worker_id else node for node in nodes]
    if new.is_relay:
        place = sum(node.is_relay for node in nodes)
        return [*nodes[:place], new, *nodes[place + 1 :], *nodes[place : place + 1]]
    return [*nodes, new]


def left(nodes: Sequence[Node], worker_id: str) -> list[Node]:
    """The order with one fewer."""
    order = list(nodes)
    hole = next((place for place, node in enumerate(order) if node.worker_id == worker_id), None)
    if hole is None:
        return order
    if order[hole].is_relay:
        last_relay = sum(node.is_relay for node in order) - 1
        order[hole] = order[last_relay]
        hole = last_relay
    order[hole] = order[-1]
    return order[:-1]


def sources(nodes: Sequence[Node], worker_id: str, trainer: str) -> list[str]:
    """Returns where a worker gets its versions: from its parent, else from those above it, else from the trainer.

    >>> sources([Node("a", "A"), Node("b", "B"), Node("c", "C"), Node("d", "D")], "d", "T")
    ['B', 'A', 'T']
    """
    place = next((place for place, node in enumerate(nodes) if node.worker_id == worker_id), 0)
    addresses = []
    while place:
        place = (place - 1) // FAN_OUT
        addresses.append(nodes[place].address)
    return [*addresses, trainer]
