"""The policy of a trainer of several ranks as weight streams: each rank streams what it holds, and nobody gathers.

The layout is torch's own: a parameter is a DTensor, whose placements say which box of it lies here (FSDP2: some rows;
tensor parallelism: rows or columns). `perilune.weights.shards` is the other end.

consumes       the ranks' parameters, between two steps
produces       this rank's parts of a version, under the digest of all ranks' parts
waits for      the other ranks' digests: a few kilobytes a version
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Replicate
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

from perilune.api.weights.v1.weights_pb2 import Manifest
from perilune.weights import State, make_delta
from perilune.weights.shards import Part, part_state, seal
from services.trainer.model import Policy
from services.trainer.publisher import PublishedVersion, raw_tensor


def rank_snapshot(
    policy: Policy, number: int, dtype: torch.dtype, before: PublishedVersion | None = None
) -> PublishedVersion:
    """What `publisher.snapshot` is for one rank; every rank of the default process group calls it."""
    mine = part_state(number, dist.get_rank(), dist.get_world_size(), list(rank_parts(policy.model, dtype)))
    manifests: list[bytes] = [b""] * dist.get_world_size()
    dist.all_gather_object(manifests, mine.manifest.SerializeToString())
    state: State = seal(mine, map(Manifest.FromString, manifests))
    return PublishedVersion(state, make_delta(before.state, state) if before else None, policy.small_files)


def rank_parts(model: nn.Module, dtype: torch.dtype) -> Iterator[Part]:
    """This rank's boxes of the state dict, rounded to `dtype` where floating-point; of copies the first rank's."""
    seen = set()
    for name, tensor in model.state_dict().items():
        local, start = _local_box(tensor)
        if local is None or not local.numel() or local.data_ptr() in seen:  # tied tensors come once
            continue
        seen.add(local.data_ptr())
        rounded = local.to(dtype, copy=True) if local.is_floating_point() else local.clone()
        yield Part(raw_tensor(name, rounded), tuple(tensor.shape), start)


def _local_box(tensor: Tensor) -> tuple[Tensor | None, tuple[int, ...]]:
    """What lies here of a tensor, and where it begins; none if another rank streams the same."""
    if not isinstance(tensor, DTensor):
        return (tensor if dist.get_rank() == 0 else None), (0,) * tensor.ndim
    place = tensor.device_mesh.get_coordinate()
    assert place is not None  # every rank is in the mesh of the model that it trains
    copies = zip(place, tensor.placements, strict=True)
    if any(at and isinstance(placement, Replicate) for at, placement in copies):
        return None, ()
    _, start = compute_local_shape_and_global_offset(tensor.shape, tensor.device_mesh, tensor.placements)
    return tensor.to_local(), tuple(start)
