"""The kernels for a card against the plain ones, in Triton's interpreter: TRITON_INTERPRET=1 python -m THIS."""

from __future__ import annotations

import torch

from services.rollout.engines.embedded.paged import kernels, triton_kernels
from services.rollout.engines.embedded.paged.kernels import PLAIN, Tiles


def compare_splits() -> None:
    """Few rows with long contexts: their keys are cut, and the parts put together."""
    triton_kernels.KEYS = 16
    assert triton_kernels.num_splits(4) > 1
    random = torch.Generator().manual_seed(2)
    keys, values = (torch.randn(9, 16, 2, 20, generator=random) for _ in range(2))  # a size that is no power of two
    table = torch.tensor([[1, 2, 3, 4, 5, 6, 7, 8], [8, 0, 0, 0, 0, 0, 0, 0]], dtype=torch.int32)
    tiles = Tiles(table, torch.tensor([[0, 0, 120, 1], [1, 1, 2, 1]], dtype=torch.int32), 1)
    query, sinks = torch.randn(6, 2, 20, generator=random), torch.randn(6, generator=random)
    for window, those in ((None, sinks), (50, None)):
        found = [torch.zeros(2, 6, 20) for _ in range(2)]
        for out, each in zip(found, (triton_kernels.TRITON, PLAIN), strict=True):
            each.attend(query, keys, values, tiles, 0.2, window, those, out)
        torch.testing.assert_close(*found, atol=1e-5, rtol=1e-5)


def compare_copies() -> None:
    """Tokens that are stored for several samples."""
    key, value = torch.randn(2, 3, 4), torch.randn(2, 3, 6)
    found = []
    for each in (triton_kernels.TRITON, PLAIN):
        pages = torch.zeros(3, 16, 2, 4), torch.zeros(3, 16, 2, 6)
        each.store(key, value, *pages, torch.tensor([0, 1, 2, 1]), torch.tensor([20, 17, 40, 33]))
        found.append(pages)
    assert all(torch.equal(*pair) for pair in zip(*found, strict=True))


if __name__ == "__main__":
    for dtype, bound in ((torch.float32, 1e-5), (torch.float16, 4e-3)):
        gap = kernels.compare(triton_kernels.TRITON, torch.device("cpu"), dtype)
        assert gap < bound, gap
    compare_copies()
    compare_splits()
