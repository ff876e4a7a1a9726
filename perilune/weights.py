"""How a weight version becomes frames and frames become a verified version again. No torch: bytes and digests.

A version's byte string is its tensors one after the other. Each tensor has a BLAKE3 digest; the version's own digest
covers every tensor's name, dtype, shape and digest, so equal digests mean equal policies, to the bit.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from blake3 import blake3

from perilune.api.trajectory.v1.trajectory_pb2 import Dtype, PolicyVersion
from perilune.api.weights.v1.weights_pb2 import Chunk, Commit, Manifest, SubscribeResponse, TensorInfo
from perilune.errors import WeightStreamError

CHUNK_BYTES = 1 << 20  # 256 KiB to 4 MiB are alike over loopback; larger chunks stall the stream


@dataclass(frozen=True)
class RawTensor:
    """A tensor as the wire has it: contiguous, little-endian."""

    name: str
    dtype: Dtype.ValueType
    shape: tuple[int, ...]
    data: memoryview  # of bytes


def state_digest(tensors: Iterable[TensorInfo]) -> str:
    """The digest of a whole version: independent of the tensors' order and of chunking."""
    lines = sorted(f"{t.name} {t.dtype} {','.join(map(str, t.shape))} {t.digest}\n" for t in tensors)
    return blake3("".join(lines).encode()).hexdigest(16)


def manifest_of(number: int, tensors: Iterable[RawTensor]) -> Manifest:
    """Lays the tensors out one after the other and digests them."""
    manifest, offset = Manifest(), 0
    for tensor in tensors:
        manifest.tensors.add(
            name=tensor.name,
            dtype=tensor.dtype,
            shape=tensor.shape,
            offset=offset,
            num_bytes=tensor.data.nbytes,
            digest=blake3(tensor.data).hexdigest(),
        )
        offset += tensor.data.nbytes
    manifest.num_bytes = offset
    manifest.version.CopyFrom(PolicyVersion(number=number, digest=state_digest(manifest.tensors)))
    return manifest


def frames(manifest: Manifest, tensors: Iterable[RawTensor]) -> Iterator[SubscribeResponse]:
    """One version as frames: manifest, chunks in order, commit."""
    yield SubscribeResponse(manifest=manifest)
    offset = 0
    for tensor in tensors:
        for start in range(0, tensor.data.nbytes, CHUNK_BYTES):
            data = bytes(tensor.data[start : start + CHUNK_BYTES])
            yield SubscribeResponse(chunk=Chunk(offset=offset, data=data))
            offset += len(data)
    yield SubscribeResponse(commit=Commit(version=manifest.version))


class Stage:
    """The shadow copy of a version that is arriving. What it hands out is complete and verified, or nothing is."""

    def __init__(self, manifest: Manifest) -> None:
        """WeightStreamError if the manifest contradicts itself."""
        _check_layout(manifest)
        self.manifest = manifest
        self._buffer = bytearray(manifest.num_bytes)
        self._num_received = 0

    def add(self, chunk: Chunk) -> None:
        """Takes the next chunk. WeightStreamError if it leaves a gap, overlaps, or runs past the end."""
        end = chunk.offset + len(chunk.data)
        if chunk.offset != self._num_received or end > self.manifest.num_bytes:
            raise WeightStreamError(
                f"chunk [{chunk.offset}, {end}) of version {self.manifest.version.number} does not follow "
                f"byte {self._num_received} of {self.manifest.num_bytes}"
            )
        self._buffer[chunk.offset : end] = chunk.data
        self._num_received = end

    def commit(self, commit: Commit) -> list[RawTensor]:
        """The verified tensors, as views of the shadow copy. WeightStreamError if anything is missing or changed."""
        number = self.manifest.version.number
        if commit.version != self.manifest.version:
            raise WeightStreamError(f"the commit is for version {commit.version.number}, not for {number}")
        if self._num_received != self.manifest.num_bytes:
            raise WeightStreamError(
                f"version {number} ended after {self._num_received} of {self.manifest.num_bytes} bytes"
            )
        view = memoryview(self._buffer)
        tensors = []
        for info in self.manifest.tensors:
            data = view[info.offset : info.offset + info.num_bytes]
            if blake3(data).hexdigest() != info.digest:
                raise WeightStreamError(f"tensor {info.name} of version {number} does not have its digest")
            tensors.append(RawTensor(info.name, info.dtype, tuple(info.shape), data))
        return tensors


def _check_layout(manifest: Manifest) -> None:
    offset = 0
    for info in manifest.tensors:
        if info.offset != offset:
            raise WeightStreamError(f"tensor {info.name} starts at byte {info.offset}, not at {offset}")
        offset += info.num_bytes
    if offset != manifest.num_bytes:
        raise WeightStreamError(f"the tensors have {offset} bytes, the manifest says {manifest.num_bytes}")
    if state_digest(manifest.tensors) != manifest.version.digest:
        raise WeightStreamError(f"version {manifest.version.number} is not what its digest says")
