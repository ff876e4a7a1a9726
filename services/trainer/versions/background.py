"""Writing beside training: what is written is copied into the machine's memory first, and one thread writes it.

On a card, training goes on after the copy. On a CPU there is nothing to gain: the copy would take memory and cores from
what trains.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor


@functools.cache
def _thread() -> ThreadPoolExecutor:
    """One for the whole process: what a run writes waits for what it wrote when it was here before."""
    return ThreadPoolExecutor(1, "checkpoints")


class BackgroundWriter:
    """Writes one thing at a time, from memory that is used again for the next."""

    def __init__(self) -> None:
        self._places: dict[str, Tensor] = {}
        self._pending: Future[object] | None = None

    def copied(self, tree: Any, name: str = "") -> Any:
        """A copy, in the machine's memory, of tensors in mappings and lists; tied ones stay tied.

        Raises what the write before raised; that one has ended afterwards.
        """
        self.wait()
        found = self._copied(tree, name, {})
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()
        return found

    def start(self, work: Callable[..., object], *arguments: object) -> None:
        """Writes, beside what the caller does next."""
        self._pending = _thread().submit(work, *arguments)

    def wait(self) -> None:
        """Returns when all is written. Raises what the write raised."""
        pending, self._pending = self._pending, None
        if pending:
            pending.result()

    def _copied(self, tree: Any, name: str, seen: dict[int, Tensor]) -> Any:
        if isinstance(tree, Mapping):
            return {key: self._copied(value, f"{name}/{key}", seen) for key, value in tree.items()}
        if isinstance(tree, list):
            return [self._copied(value, f"{name}/{number}", seen) for number, value in enumerate(tree)]
        if not isinstance(tree, Tensor):
            return tree
        if tree.numel() and tree.data_ptr() in seen:
            return seen[tree.data_ptr()]
        place = self._place(name, tree)
        seen[tree.data_ptr()] = place.copy_(tree.detach(), non_blocking=True)
        return place

    def _place(self, name: str, like: Tensor) -> Tensor:
        """Memory for a tensor; pinned where it comes from a card, which copies there at many times the speed."""
        place = self._places.get(name)
        if place is None or (place.shape, place.dtype) != (like.shape, like.dtype):
            place = torch.empty(like.shape, dtype=like.dtype, device="cpu", pin_memory=like.is_cuda)
            self._places[name] = place
        return place
