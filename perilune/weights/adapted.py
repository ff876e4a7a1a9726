"""A base and its low-rank adapter as one policy (LoRA, arXiv:2106.09685). No torch.

The base is sent once, an adapter's versions are a stream of their own: the factors A and B of each adapted matrix,
under the names that PEFT gives them, and the digest of the base, so that a version's digest names all of the policy. A
receiver puts W + scale · B A in W's place, and engines know of no adapters.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

import numpy as np
from numpy.typing import NDArray

from perilune.api.trajectory.v1 import trajectory_pb2 as trajectory
from perilune.api.trajectory.v1.trajectory_pb2 import PolicyVersion
from perilune.errors import WeightStreamError
from perilune.weights.quantized import dequantized, to_bfloat16
from perilune.weights.receiver import Receiver, StagedVersion
from perilune.weights.tensors import RawTensor

STREAM = "policy"  # the adapter's name among a run's streams
BASE_DIGEST = "base_digest"
CONFIG_FILE = "adapter_config.json"
PREFIX, A_SUFFIX, B_SUFFIX = "base_model.model.", ".lora_A.weight", ".lora_B.weight"


class AdaptedReceiver:
    """A `Receiver` of a base and its adapter, for a policy that is sent so."""

    def __init__(self, base: Receiver, adapter: Receiver) -> None:
        self._base, self._adapter = base, adapter

    @property
    def source(self) -> str:
        """The adapter stream's source, `host:port`."""
        return self._adapter.source

    def move(self, addresses: Sequence[str], rank_addresses: Sequence[str] = ()) -> None:
        """Sets the sources, as `Receiver.move`; an adapter is trained on one rank."""
        for receiver in (self._base, self._adapter):
            receiver.move(addresses)

    def expect(self, version: PolicyVersion) -> None:
        """Waits for this version in the adapter's stream."""
        self._adapter.expect(version)

    async def versions(self) -> AsyncGenerator[StagedVersion]:
        """Every version of the adapter, in its base, once that is here."""
        bases: asyncio.Queue[StagedVersion] = asyncio.Queue()

        async def follow_base() -> None:
            async with aclosing(self._base.versions()) as versions:
                async for version in versions:
                    bases.put_nowait(version)

        following = asyncio.create_task(follow_base())
        base: StagedVersion | None = None
        try:
            async with aclosing(self._adapter.versions()) as versions:
                async for version in versions:
                    while base is None or base.manifest.version.digest != base_digest(version.tensors):
                        base = await bases.get()
                    scale = scale_of(version.model_files[CONFIG_FILE])
                    tensors = await asyncio.to_thread(adapted, base.tensors, version.tensors, scale)
                    yield StagedVersion(version.manifest, tensors, base.model_files)
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)


def base_digest(tensors: Sequence[RawTensor]) -> str:
    """The digest of the base that an adapter's version names. WeightStreamError if it names none."""
    found = [bytes(raw.data).hex() for raw in tensors if raw.name == BASE_DIGEST]
    if not found:
        raise WeightStreamError("an adapter's version does not name its base")
    return found[0]


def scale_of(config: bytes) -> float:
    """alpha / rank, as PEFT's configuration has them."""
    document = json.loads(config)
    return float(document["lora_alpha"]) / float(document["r"])


def adapted(base: Sequence[RawTensor], adapter: Sequence[RawTensor], scale: float) -> list[RawTensor]:
    """The base's tensors with every adapted matrix changed, each in its own dtype, float32 or bfloat16.

    WeightStreamError if the adapter is not one of such a base.
    """
    plain = dequantized(base)
    factors = {raw.name: raw for raw in adapter if raw.name != BASE_DIGEST}
    changed = {}
    for raw in plain:
        module = PREFIX + raw.name.removesuffix(".weight")
        a, b = factors.pop(module + A_SUFFIX, None), factors.pop(module + B_SUFFIX, None)
        if a is not None and b is not None:
            changed[raw.name] = _adapted_matrix(raw, a, b, scale)
    if factors:
        raise WeightStreamError(f"the adapter changes {min(factors)}, and the base has no such matrix")
    return [changed.get(raw.name, raw) for raw in plain]


def _adapted_matrix(raw: RawTensor, a: RawTensor, b: RawTensor, scale: float) -> RawTensor:
    if (b.shape[:1] + a.shape[1:]) != raw.shape or a.shape[:1] != b.shape[1:]:
        raise WeightStreamError(f"factors of shapes {b.shape} and {a.shape} do not change {raw.name} of {raw.shape}")
    values = _values(raw) + np.float32(scale) * (_values(b) @ _values(a))
    octets = values if raw.dtype == trajectory.DTYPE_FLOAT32 else to_bfloat16(values)
    return RawTensor(raw.name, raw.dtype, raw.shape, octets.reshape(-1).view(np.uint8).data)


def _values(raw: RawTensor) -> NDArray[np.float32]:
    if raw.dtype == trajectory.DTYPE_FLOAT32:
        return np.frombuffer(raw.data, "<f4").reshape(raw.shape)
    if raw.dtype == trajectory.DTYPE_BFLOAT16:
        return (np.frombuffer(raw.data, "<u2").astype(np.uint32) << 16).view(np.float32).reshape(raw.shape)
    raise WeightStreamError(f"{raw.name} is neither float32 nor bfloat16, and cannot be adapted")
