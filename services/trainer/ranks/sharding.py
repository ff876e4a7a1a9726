"""A policy that lies on several ranks: each has some rows of every tensor (FSDP2), computes with one layer at a time
whole, and streams its own rows to the fleet. `perilune.weights.shards` is the other end of that stream.

The first rank makes or loads the policy and has it whole until it is sharded; the others begin with its shape alone.
What it takes to go on, on any number of ranks, is put together on the first rank again, tensor by tensor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from services.trainer.policy.layers import decoder_layers
from services.trainer.ranks.group import Ranks


def shard(module: nn.Module, ranks: Ranks, dtype: torch.dtype | None = None) -> None:
    """Shards the first rank's weights over all ranks, in place; gradients are summed over them.

    The others' tensors may be empty, of memory that nothing was written to: it is taken for one layer at a time.

    Args:
        dtype: that whole layers are put together and computed in, where it is not their own. Gradients are summed, and
            each rank's part is kept, in the weights' own.
    """
    mesh = init_device_mesh(ranks.device.type, (ranks.size,))
    policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32) if dtype else MixedPrecisionPolicy()
    for part in [*decoder_layers(module), module]:
        _fill(part)
        fully_shard(part, mesh=mesh, mp_policy=policy)
        assert isinstance(part, FSDPModule)
        # The loss is a sum over rows, and each rank has some of the rows; FSDP would take the ranks' mean.
        part.set_gradient_divide_factor(1.0)
        part.set_force_sum_reduction_for_comms(True)  # the way to a sum that every backend has


def _fill(module: nn.Module) -> None:
    """Gives tensors that are not sharded yet the first rank's values."""
    for tensor in [*module.parameters(), *module.buffers()]:
        if not isinstance(tensor, DTensor):
            dist.broadcast(tensor.detach(), src=0)


# --- The whole again, on the first rank ---------------------------------------------------------------------------


def whole_state(model: nn.Module, ranks: Ranks) -> dict[str, Tensor]:
    """The state dict that the model would have on one rank, on the first rank; the others get empty tensors."""
    found: dict[Tensor, Tensor] = {}  # tied ones are put together once
    state = model.state_dict(keep_vars=True)
    for tensor in state.values():
        if tensor not in found:
            found[tensor] = _whole(tensor, ranks)
    return {name: found[tensor] for name, tensor in state.items()}


def whole_optimizer_state(state: Mapping[str, Any], ranks: Ranks) -> dict[str, Any]:
    """An optimiser's state dict in the same way."""
    moments = {
        index: {name: _whole(value, ranks) if isinstance(value, Tensor) else value for name, value in each.items()}
        for index, each in state["state"].items()
    }
    return {**state, "state": moments}


def _whole(tensor: Tensor, ranks: Ranks) -> Tensor:
    whole = (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).detach().cpu()
    return whole if ranks.leads else whole.new_empty(0)


def outline(state: Mapping[str, Any]) -> dict[str, Any]:
    """An optimiser's state dict for ranks that are to receive their shard: tensors of these shapes, without values."""
    moments = {
        index: {name: value.to("meta") if _is_sharded(value) else value for name, value in each.items()}
        for index, each in state["state"].items()
    }
    return {**state, "state": moments}


def sharded_optimizer_state(state: Mapping[str, Any], parameters: Sequence[nn.Parameter]) -> dict[str, Any]:
    """The first rank's optimiser state, each rank's part of it; the others give its outline."""

    def sharded(value: Any, parameter: nn.Parameter) -> Any:
        if not (isinstance(parameter, DTensor) and _is_sharded(value)):
            return value
        mesh = parameter.device_mesh
        there = torch.empty_like(value, device="cpu") if value.is_meta else value
        return distribute_tensor(there.to(mesh.device_type), mesh, parameter.placements)

    moments = {
        index: {name: sharded(value, parameters[index]) for name, value in each.items()}
        for index, each in state["state"].items()
    }
    return {**state, "state": moments}


def _is_sharded(value: Any) -> bool:
    """Not so counters, which every rank has."""
    return isinstance(value, Tensor) and value.ndim > 0


# --- Each rank's part to the fleet --------------------------------------------------------------------------------
