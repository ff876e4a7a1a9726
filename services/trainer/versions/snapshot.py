"""A policy's state as a version's tensors of bytes."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from perilune.api.trajectory.v1.trajectory_pb2 import PolicyVersion
from perilune.models.tensors import raw_tensor
from perilune.weights import Delta, RawTensor, State, make_delta
from perilune.weights.choice import Measured
from perilune.weights.server import SERVICE as SERVICE  # noqa: PLC0414
from services.trainer.policy.model import Policy
from services.trainer.versions.quantize import Kind, quantized


@dataclass(frozen=True)
class PublishedVersion:
    """A version as it goes to the fleet; a copy of the policy, which training does not reach."""

    state: State
    delta: Delta | None  # from the version before, where that is small
    model_files: Mapping[str, bytes]  # for a subscriber that has nothing yet

    @property
    def policy(self) -> PolicyVersion:
        """Its number and digest."""
        return self.state.version


def snapshot(
    policy: Policy,
    number: int,
    dtype: torch.dtype,
    before: PublishedVersion | None = None,
    quantize: Kind | None = None,
    measured: Measured | None = None,
) -> PublishedVersion:
    """Copies the policy's state as it is now; floating-point tensors are rounded to `dtype`.

    Args:
        policy: whose state.
        number: of the version.
        dtype: what engines hold.
        before: the version that most subscribers have; without it everyone is sent the whole state.
        quantize: how matrices go there, if not in `dtype`.
        measured: takes note of how long the delta took.
    """
    state = State.of(number, raw_tensors(policy.model, dtype, quantize))
    return PublishedVersion(state, change_from(before, state, measured), policy.model_files)


def change_from(before: PublishedVersion | None, state: State, measured: Measured | None) -> Delta | None:
    """The delta from the version before; None without one, or where the whole is hardly larger."""
    if before is None:
        return None
    started = time.perf_counter()
    delta = make_delta(before.state, state)
    if measured:
        seconds = time.perf_counter() - started
        measured.encoded(state.manifest.num_bytes, delta.num_bytes if delta else None, seconds)
    return delta


def raw_tensors(model: nn.Module, dtype: torch.dtype, quantize: Kind | None = None) -> list[RawTensor]:
    """The state dict as the wire has it. Tied tensors come once, under the name that comes first."""
    raw, seen = [], set()
    for name, tensor in model.state_dict().items():
        if tensor.data_ptr() not in seen:
            seen.add(tensor.data_ptr())
            rounded = tensor.to(dtype, copy=True) if tensor.is_floating_point() else tensor.clone()
            raw += [raw_tensor(*pair) for pair in quantized(name, rounded, quantize)]
    return raw
