"""Stands in for SGLang's kernels, whose builds are for GPUs: the one function that the torch-native path calls."""

from absent import stand_in
from torch import Tensor

__getattr__ = stand_in("sgl_kernel")


def assign_req_to_token_pool_cpu(
    rows: Tensor, pool: Tensor, starts: Tensor, ends: Tensor, places: Tensor, pool_len: int
) -> None:
    """Writes each request's new cache places, which lie one after the other in `places`, into its row of the pool."""
    taken = 0
    for row, start, end in zip(rows.tolist(), starts.tolist(), ends.tolist(), strict=True):
        pool[row, start:end] = places[taken : taken + end - start]
        taken += end - start
