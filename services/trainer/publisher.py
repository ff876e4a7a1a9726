"""The server side of the weight stream: each run's newest version, to whoever is subscribed.

A version is serialised once, at publication; every subscriber is sent the same bytes. That copy is also the snapshot:
training goes on in place while it is sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import grpc
import torch
from torch import Tensor, nn

from perilune.api.trajectory.v1 import trajectory_pb2 as trajectory
from perilune.api.trajectory.v1.trajectory_pb2 import PolicyVersion
from perilune.api.weights.v1 import weights_pb2
from perilune.api.weights.v1.weights_pb2 import Manifest, SubscribeRequest, SubscribeResponse
from perilune.errors import NotFoundError
from perilune.service import rpc_errors
from perilune.weights import RawTensor, frames, manifest_of
from services.trainer.model import Policy

SERVICE = weights_pb2.DESCRIPTOR.services_by_name["WeightService"]
NUM_KEPT_RUNS = 2  # a run that just ended may still be evaluated while the next one starts

_WIRE_DTYPE = {
    torch.float32: trajectory.DTYPE_FLOAT32,
    torch.bfloat16: trajectory.DTYPE_BFLOAT16,
    torch.float16: trajectory.DTYPE_FLOAT16,
    torch.float64: trajectory.DTYPE_FLOAT64,
    torch.int64: trajectory.DTYPE_INT64,
    torch.int32: trajectory.DTYPE_INT32,
    torch.uint8: trajectory.DTYPE_UINT8,
    torch.bool: trajectory.DTYPE_BOOL,
}


@dataclass(frozen=True)
class PublishedVersion:
    """A version as it goes over the wire: serialised frames."""

    policy: PolicyVersion
    manifest: bytes
    manifest_with_files: bytes  # for a subscriber that has nothing yet
    rest: list[bytes]  # chunks and commit


def snapshot(policy: Policy, number: int, dtype: torch.dtype) -> PublishedVersion:
    """Copies the policy's state as it is now; floating-point tensors are rounded to `dtype`."""
    tensors = raw_tensors(policy.model, dtype)
    manifest = manifest_of(number, tensors)
    first, *rest = (frame.SerializeToString() for frame in frames(manifest, tensors))
    with_files = Manifest()
    with_files.CopyFrom(manifest)
    for name, content in policy.small_files.items():
        with_files.model_files[name] = content
    return PublishedVersion(
        policy=manifest.version,
        manifest=first,
        manifest_with_files=SubscribeResponse(manifest=with_files).SerializeToString(),
        rest=rest,
    )


def raw_tensors(model: nn.Module, dtype: torch.dtype) -> list[RawTensor]:
    """The state dict as the wire has it. Tied tensors come once, under the name that comes first."""
    raw, seen = [], set()
    for name, tensor in model.state_dict().items():
        if tensor.data_ptr() not in seen:
            seen.add(tensor.data_ptr())
            raw.append(_raw_tensor(name, tensor.to(dtype) if tensor.is_floating_point() else tensor))
    return raw


def _raw_tensor(name: str, tensor: Tensor) -> RawTensor:
    octets = tensor.contiguous().reshape(-1).view(torch.uint8)
    return RawTensor(name, _WIRE_DTYPE[tensor.dtype], tuple(tensor.shape), memoryview(octets.numpy()))  # type: ignore[arg-type]  # an array is a buffer


@dataclass
class _Stream:
    """One run's newest version, and the event that is set when it is no longer the newest."""

    version: PublishedVersion | None = None
    replaced: asyncio.Event = field(default_factory=asyncio.Event)


class Publisher:
    """Serves WeightService. All methods belong to the event loop's thread."""

    def __init__(self) -> None:
        self._streams: dict[str, _Stream] = {}

    def add_to(self, server: grpc.aio.Server) -> None:
        """Registers the service with responses that are bytes already."""
        handler: grpc.RpcMethodHandler[SubscribeRequest, bytes] = grpc.unary_stream_rpc_method_handler(
            self._subscribe, request_deserializer=SubscribeRequest.FromString, response_serializer=None
        )
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(SERVICE.full_name, {"Subscribe": handler}),)
        )

    def open(self, run_id: str) -> None:
        """From now on subscribers of the run wait for its next version, instead of hearing that there is none.

        A version of before is forgotten: the run may go on from an older one.
        """
        before = self._streams.pop(run_id, None)
        self._streams[run_id] = _Stream()
        if before:
            before.replaced.set()
        for ended in list(self._streams)[:-NUM_KEPT_RUNS]:
            self._streams.pop(ended).replaced.set()

    def publish(self, run_id: str, version: PublishedVersion) -> None:
        """Makes a version the newest of its run, and wakes its subscribers."""
        before = self._streams.pop(run_id)
        self._streams[run_id] = _Stream(version)
        before.replaced.set()

    async def _subscribe(
        self, request: SubscribeRequest, context: grpc.aio.ServicerContext[SubscribeRequest, bytes]
    ) -> AsyncIterator[bytes]:
        have = request.have if request.HasField("have") else None
        async with rpc_errors(context):
            while True:
                stream = self._streams.get(request.run_id)
                if stream is None:
                    raise NotFoundError(f"this trainer serves no run {request.run_id!r}; ask the master where it is")
                if stream.version is not None and stream.version.policy != have:
                    yield stream.version.manifest if have else stream.version.manifest_with_files
                    for frame in stream.version.rest:
                        yield frame
                    have = stream.version.policy
                    continue  # what came meanwhile goes next, and only the newest of it
                await stream.replaced.wait()
