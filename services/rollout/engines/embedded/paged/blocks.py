"""Blocks of keys and values by number: which are free, which are shared, and which hold what a new sample begins with.

A block that is full never changes, so samples that begin alike share it. Its key stands for all tokens up to its end,
and finds it until it is taken for something else, also after its samples ended.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import blake2b
from itertools import islice
from typing import Protocol

BLOCK_TOKENS = 16
SPARE_BLOCK = 0  # of no sample: where a pass of a fixed number of rows writes what belongs to none


def num_blocks(num_tokens: int) -> int:
    """Blocks that so many tokens take.

    >>> num_blocks(16), num_blocks(17)
    (1, 2)
    """
    return -(-num_tokens // BLOCK_TOKENS)


class Keyed(Protocol):
    """A sample, as far as blocks are concerned."""

    def key(self, start: int, end: int) -> bytes:
        """Stands for its tokens from one to another and the images that lie there."""


def block_keys(sample: Keyed, keys: Sequence[bytes], count: int) -> list[bytes]:
    """The keys of a sample's first `count` blocks; `keys` are those that are known already."""
    found = list(keys)
    for start in range(len(found) * BLOCK_TOKENS, count * BLOCK_TOKENS, BLOCK_TOKENS):
        block = sample.key(start, start + BLOCK_TOKENS)
        found.append(blake2b((found[-1] if found else b"") + block, digest_size=16).digest())
    return found


class BlockPool:
    """Counts the uses of each block. Of the free ones, that which was used last is taken last."""

    def __init__(self, num_blocks: int) -> None:
        """`num_blocks`: the spare one comes in addition."""
        self.size = num_blocks
        self._num_users = [0] * (num_blocks + 1)
        self._free = dict.fromkeys(range(1, num_blocks + 1))  # the first is taken next
        self._by_key: dict[bytes, int] = {}
        self._keys: dict[int, bytes] = {}

    @property
    def num_free(self) -> int:
        """Blocks that no sample uses."""
        return len(self._free)

    def take(self, count: int) -> list[int]:
        """Takes free blocks; there must be so many."""
        blocks = list(islice(self._free, count))
        for block in blocks:
            del self._free[block]
            self._by_key.pop(self._keys.pop(block, b""), None)
            self._num_users[block] = 1
        return blocks

    def share(self, keys: Iterable[bytes]) -> list[int]:
        """Uses the blocks of these keys too, up to the first that no block has."""
        blocks = []
        for key in keys:
            block = self._by_key.get(key)
            if block is None:
                break
            self._free.pop(block, None)
            self._num_users[block] += 1
            blocks.append(block)
        return blocks

    def name(self, block: int, key: bytes) -> None:
        """Has a full block found by its key; the first of several alike is."""
        if key not in self._by_key and block not in self._keys:
            self._by_key[key] = block
            self._keys[block] = key

    def release(self, blocks: Sequence[int]) -> None:
        """Ends one use of each block. The last ones are taken first: the others begin more samples."""
        for block in reversed(blocks):
            self._num_users[block] -= 1
            if not self._num_users[block]:
                self._free[block] = None

    def forget_keys(self) -> None:
        """No block is found any more: weights changed."""
        self._by_key, self._keys = {}, {}

    def grow(self, num_blocks: int) -> None:
        """Adds free blocks until there are so many."""
        added = range(self.size + 1, num_blocks + 1)
        self._free |= dict.fromkeys(added)
        self._num_users += [0] * len(added)
        self.size = max(self.size, num_blocks)
