"""A version as tensors of bytes, its layout and its digests.

A version's byte string is its tensors one after the other. Each tensor has a BLAKE3 digest; the version's own digest
covers every tensor's name, dtype, shape and digest, so equal digests mean equal policies, to the bit.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from blake3 import blake3

from perilune.api.trajectory.v1.trajectory_pb2 import Dtype, PolicyVersion
from perilune.api.weights.v1.weights_pb2 import Manifest, TensorInfo
from perilune.dtypes import ITEM_TYPES
from perilune.errors import WeightStreamError
from perilune.weights.parallel import in_threads

THREADED_BYTES = 1 << 20  # of a tensor that is digested in several threads
CHUNK_BYTES = 1 << 20  # 256 KiB to 4 MiB are alike over loopback; larger chunks stall the stream


@dataclass(frozen=True)
class RawTensor:
    """A tensor as the wire has it: contiguous, little-endian."""

    name: str
    dtype: Dtype.ValueType
    shape: tuple[int, ...]
    data: memoryview  # of bytes


@dataclass(frozen=True)
class State:
    """A version that is all there: its manifest, as of a whole version, and its tensors in the manifest's order."""

    manifest: Manifest
    tensors: Sequence[RawTensor]

    @staticmethod
    def of(number: int, tensors: Sequence[RawTensor]) -> State:
        """Takes tensors, which must not change any more, as a version."""
        return State(manifest_of(number, tensors), tensors)

    @property
    def version(self) -> PolicyVersion:
        """The version that the tensors are of."""
        return self.manifest.version


def digest_of(data: memoryview) -> str:
    """BLAKE3 of a tensor's bytes, hex. All cores take part in a large one's: they give the same digest as one."""
    return blake3(data, max_threads=blake3.AUTO if data.nbytes >= THREADED_BYTES else 1).hexdigest()


def state_digest(tensors: Iterable[TensorInfo]) -> str:
    """The digest of a whole version: independent of the tensors' order and of chunking."""
    return blake3("".join(sorted(_line(tensor) for tensor in tensors)).encode()).hexdigest(16)


def _line(tensor: TensorInfo) -> str:
    line = f"{tensor.name} {tensor.dtype} {_numbers(tensor.shape)} {tensor.digest}"
    part = f" {_numbers(tensor.whole_shape)} {_numbers(tensor.start)}" if tensor.whole_shape else ""
    return f"{line}{part}\n"


def _numbers(numbers: Iterable[int]) -> str:
    return ",".join(map(str, numbers))


def manifest_of(number: int, tensors: Iterable[RawTensor]) -> Manifest:
    """Lays the tensors out one after the other and digests them."""
    manifest, offset, tensors = Manifest(), 0, list(tensors)
    digests = in_threads(digest_of, [tensor.data for tensor in tensors], sum(tensor.data.nbytes for tensor in tensors))
    for tensor, digest in zip(tensors, digests, strict=True):
        manifest.tensors.add(
            name=tensor.name,
            dtype=tensor.dtype,
            shape=tensor.shape,
            offset=offset,
            num_bytes=tensor.data.nbytes,
            digest=digest,
        )
        offset += tensor.data.nbytes
    manifest.num_bytes = offset
    manifest.version.CopyFrom(PolicyVersion(number=number, digest=state_digest(manifest.tensors)))
    return manifest


def check_layout(manifest: Manifest) -> None:
    """WeightStreamError if a manifest contradicts itself."""
    offset, names = 0, set()
    for info in manifest.tensors:
        if info.offset != offset:
            raise WeightStreamError(f"tensor {info.name} starts at byte {info.offset}, not at {offset}")
        if info.name in names:
            raise WeightStreamError(f"tensor {info.name} comes twice")
        if info.dtype not in ITEM_TYPES or info.num_bytes != math.prod(info.shape) * ITEM_TYPES[info.dtype].num_bytes:
            raise WeightStreamError(
                f"tensor {info.name} of shape {tuple(info.shape)} and dtype {info.dtype} cannot have "
                f"{info.num_bytes} bytes"
            )
        names.add(info.name)
        offset += info.num_bytes
    if offset != manifest.num_bytes:
        raise WeightStreamError(f"the tensors have {offset} bytes, the manifest says {manifest.num_bytes}")
    own_digest = manifest.shard.digest if manifest.HasField("shard") else manifest.version.digest
    if state_digest(manifest.tensors) != own_digest:
        raise WeightStreamError(f"version {manifest.version.number} is not what its digest says")


def payload_bytes_of(manifest: Manifest) -> int:
    """The size of the chunks that follow a manifest, together."""
    return manifest.payload_bytes if manifest.HasField("base") else manifest.num_bytes
