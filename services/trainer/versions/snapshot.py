"""A policy's state as a version's tensors of bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from perilune.api.trajectory.v1 import trajectory_pb2 as trajectory
from perilune.api.trajectory.v1.trajectory_pb2 import PolicyVersion
from perilune.weights import Delta, RawTensor, State, make_delta
from perilune.weights.server import SERVICE as SERVICE  # noqa: PLC0414
from services.trainer.policy.model import Policy
from services.trainer.versions.quantize import Kind, quantized

_WIRE_DTYPE = {
    torch.float32: trajectory.DTYPE_FLOAT32,
    torch.bfloat16: trajectory.DTYPE_BFLOAT16,
    torch.float16: trajectory.DTYPE_FLOAT16,
    torch.float64: trajectory.DTYPE_FLOAT64,
    torch.int64: trajectory.DTYPE_INT64,
    torch.int32: trajectory.DTYPE_INT32,
    torch.float8_e4m3fn: trajectory.DTYPE_FLOAT8_E4M3,
    torch.float8_e5m2: trajectory.DTYPE_FLOAT8_E5M2,
    torch.int8: trajectory.DTYPE_INT8,
    torch.uint8: trajectory.DTYPE_UINT8,
    torch.bool: trajectory.DTYPE_BOOL,
}


@dataclass(frozen=True)
class PublishedVersion:
    """A version as it goes to the fleet; a copy of the policy, which training does not reach."""

    state: State
    delta: Delta | None  # from the version before, where that is small
    model_files: Mapping[str, bytes]  # for a subscriber that has nothing yet

    @property
    def policy(self) -> PolicyVersion:
        return self.state.version


def snapshot(
    policy: Policy,
    number: int,
    dtype: torch.dtype,
    before: PublishedVersion | None = None,
    quantize: Kind | None = None,
) -> PublishedVersion:
    """Copies the policy's state as it is now; floating-point tensors are rounded to `dtype`.

    Args:
        policy: whose state.
        number: of the version.
        dtype: what engines hold.
        before: the version that most subscribers have; without it everyone is sent the whole state.
        quantize: how matrices go there, if not in `dtype`.
    """
    state = State.of(number, raw_tensors(policy.model, dtype, quantize))
    return PublishedVersion(state, make_delta(before.state, state) if before else None, policy.small_files)


def raw_tensors(model: nn.Module, dtype: torch.dtype, quantize: Kind | None = None) -> list[RawTensor]:
    """The state dict as the wire has it. Tied tensors come once, under the name that comes first."""
    raw, seen = [], set()
    for name, tensor in model.state_dict().items():
        if tensor.data_ptr() not in seen:
            seen.add(tensor.data_ptr())
            rounded = tensor.to(dtype, copy=True) if tensor.is_floating_point() else tensor.clone()
            raw += [raw_tensor(*pair) for pair in quantized(name, rounded, quantize)]
    return raw


def raw_tensor(name: str, tensor: Tensor) -> RawTensor:
    """A tensor that nobody changes any more as the wire has it; its memory is shared."""
    octets = tensor.contiguous().reshape(-1).view(torch.uint8)
    return RawTensor(name, _WIRE_DTYPE[tensor.dtype], tuple(tensor.shape), memoryview(octets.cpu().numpy()))  # type: ignore[arg-type]  # an array is a buffer
