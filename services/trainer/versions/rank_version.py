"""One rank's part of a version."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.default_planner import create_default_local_save_plan
from torch.distributed.tensor import DTensor, Replicate

from perilune.api.weights.v1.weights_pb2 import Manifest
from perilune.models.tensors import raw_tensor
from perilune.weights import State
from perilune.weights.choice import Measured
from perilune.weights.shards import Part, part_state, seal
from services.trainer.policy.model import Policy
from services.trainer.ranks.group import Ranks
from services.trainer.versions.quantize import Kind, quantized
from services.trainer.versions.snapshot import PublishedVersion, change_from


def rank_snapshot(
    policy: Policy,
    number: int,
    dtype: torch.dtype,
    ranks: Ranks,
    before: PublishedVersion | None = None,
    quantize: Kind | None = None,
    measured: Measured | None = None,
) -> PublishedVersion:
    """Like `snapshot.snapshot`, for one rank of several; every rank calls it. The parts' digests go round."""
    mine = part_state(number, ranks.rank, ranks.size, list(rank_parts(policy.model, dtype, quantize)))
    manifests = ranks.gathered(mine.manifest.SerializeToString())
    state: State = seal(mine, map(Manifest.FromString, manifests))
    return PublishedVersion(state, change_from(before, state, measured), policy.model_files)


def rank_parts(model: nn.Module, dtype: torch.dtype, quantize: Kind | None = None) -> Iterator[Part]:
    """This rank's boxes of the state dict as `publisher.raw_tensors` has it whole; of copies the first rank's.

    `quantize` gives every row a scale, so rows must be whole: FSDP cuts between them.
    """
    seen = set()
    for name, tensor in model.state_dict().items():
        local, start = _local_box(name, tensor)
        if local is None or not local.numel() or local.data_ptr() in seen:  # tied tensors come once
            continue
        seen.add(local.data_ptr())
        rounded = local.to(dtype, copy=True) if local.is_floating_point() else local.clone()
        for part_name, part in quantized(name, rounded, quantize):
            yield Part(raw_tensor(part_name, part), tuple(tensor.shape[: part.ndim]), start[: part.ndim])


def _local_box(name: str, tensor: Tensor) -> tuple[Tensor | None, tuple[int, ...]]:
    """This rank's part of a tensor, and where it begins; none if another rank streams the same."""
    if not isinstance(tensor, DTensor):
        return (tensor if dist.get_rank() == 0 else None), (0,) * tensor.ndim
    place = tensor.device_mesh.get_coordinate()
    assert place is not None  # every rank is in the mesh of the model that it trains
    copies = zip(place, tensor.placements, strict=True)
    if any(at and isinstance(placement, Replicate) for at, placement in copies):
        return None, ()
    # What torch would write into a distributed checkpoint from here says where it lies in the whole.
    (item,) = create_default_local_save_plan({name: tensor}, is_coordinator=False).items
    assert item.tensor_data is not None
    return tensor.to_local(), tuple(item.tensor_data.chunk.offsets)
