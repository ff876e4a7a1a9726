"""A version as frames, and the stage in which frames become a verified version again.

On the wire every frame is a `SubscribeResponse`, as the proto says. Chunks are written and read without protobuf's
classes: their bytes are copied once on each side instead of three times, and a frame made once goes to all receivers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from google.protobuf.message import DecodeError

from perilune.api.trajectory.v1.trajectory_pb2 import PolicyVersion
from perilune.api.weights.v1.weights_pb2 import Chunk, Commit, Manifest, SubscribeResponse
from perilune.errors import WeightStreamError
from perilune.weights.delta import apply_delta
from perilune.weights.tensors import CHUNK_BYTES, RawTensor, State, check_layout, digest_of, payload_bytes_of

# Tags of the proto's fields, with their wire types.
_CHUNK_TAG = SubscribeResponse.CHUNK_FIELD_NUMBER << 3 | 2
_OFFSET_TAG = Chunk.OFFSET_FIELD_NUMBER << 3
_DATA_TAG = Chunk.DATA_FIELD_NUMBER << 3 | 2


class ChunkLike(Protocol):
    """A piece of a payload: the proto's Chunk, or RawChunk."""

    @property
    def offset(self) -> int:
        """The chunk's place in the payload, in bytes."""

    @property
    def data(self) -> bytes | memoryview:
        """The chunk's bytes."""


@dataclass(frozen=True)
class RawChunk:
    """A chunk as a view of its frame."""

    offset: int
    data: memoryview


def frames(manifest: Manifest, tensors: Iterable[RawTensor]) -> Iterator[SubscribeResponse]:
    """A whole version as frames: manifest, chunks in order, commit."""
    yield SubscribeResponse(manifest=manifest)
    for offset, data in pieces([tensor.data for tensor in tensors]):
        yield SubscribeResponse(chunk=Chunk(offset=offset, data=bytes(data)))
    yield SubscribeResponse(commit=Commit(version=manifest.version))


def pieces(parts: Sequence[bytes | memoryview]) -> list[tuple[int, memoryview]]:
    """The payload's chunks with their offsets. None spans two parts, so that none needs to be put together."""
    found, offset = [], 0
    for part in parts:
        view = memoryview(part)
        for start in range(0, len(view), CHUNK_BYTES):
            piece = view[start : start + CHUNK_BYTES]
            found.append((offset, piece))
            offset += len(piece)
    return found


def chunk_frame(offset: int, data: memoryview) -> bytes:
    """A frame with a chunk, serialised."""
    inner = (bytes([_OFFSET_TAG]) + _varint(offset) if offset else b"") + bytes([_DATA_TAG]) + _varint(len(data))
    return b"".join((bytes([_CHUNK_TAG]), _varint(len(inner) + len(data)), inner, data))


def manifest_frame(manifest: Manifest) -> bytes:
    """Encodes the frame that opens a version."""
    return SubscribeResponse(manifest=manifest).SerializeToString()


def commit_frame(version: PolicyVersion) -> bytes:
    """Encodes the frame that closes a version."""
    return SubscribeResponse(commit=Commit(version=version)).SerializeToString()


def read_frame(frame: bytes) -> RawChunk | Manifest | Commit:
    """Decodes a serialised frame. WeightStreamError if it is none."""
    if chunk := _read_chunk(frame):
        return chunk
    try:
        message = SubscribeResponse.FromString(frame)
    except DecodeError as error:
        raise WeightStreamError(f"a frame of {len(frame)} bytes is no frame of the weight stream") from error
    match message.WhichOneof("frame"):
        case "manifest":
            return message.manifest
        case "commit":
            return message.commit
        case "chunk":  # written in another order than ours
            return RawChunk(message.chunk.offset, memoryview(message.chunk.data))
    raise WeightStreamError("a frame holds neither manifest, nor chunk, nor commit; update this worker")


def _read_chunk(frame: bytes) -> RawChunk | None:
    """The chunk of a frame that is laid out as `chunk_frame` does it; None for any other."""
    try:
        if frame[0] != _CHUNK_TAG:
            return None
        size, at = _read_varint(frame, 1)
        whole, offset = at + size == len(frame), 0
        if frame[at] == _OFFSET_TAG:
            offset, at = _read_varint(frame, at + 1)
        if frame[at] != _DATA_TAG:
            return None
        size, at = _read_varint(frame, at + 1)
    except IndexError:
        return None
    return RawChunk(offset, memoryview(frame)[at:]) if whole and at + size == len(frame) else None


def _varint(number: int) -> bytes:
    octets = bytearray()
    while number >= 0x80:
        octets.append(number & 0x7F | 0x80)
        number >>= 7
    octets.append(number)
    return bytes(octets)


def _read_varint(octets: bytes, at: int) -> tuple[int, int]:
    """The number that begins at a place, and the place after it."""
    number = shift = 0
    while octets[at] & 0x80:
        number |= (octets[at] & 0x7F) << shift
        shift, at = shift + 7, at + 1
    return number | octets[at] << shift, at + 1


# Of tensors that are all there, while the next ones arrive.
_digesting = ThreadPoolExecutor(1, "digests")


class Stage:
    """The shadow copy of a version that is arriving. What it hands out is complete and verified, or nothing is."""

    def __init__(self, manifest: Manifest, base: State | None = None) -> None:
        """WeightStreamError if the manifest contradicts itself, or is a change of something else than the base."""
        check_layout(manifest)
        if manifest.HasField("base"):
            _check_change(manifest, base)
        self.manifest = manifest
        self._base = base
        self._num_received = 0
        self._num_bytes = payload_bytes_of(manifest)
        # A buffer a tensor: a tensor that stays the same in later versions must not keep the memory of all others.
        self._is_whole = not manifest.HasField("base")
        sizes = [info.num_bytes for info in manifest.tensors] if self._is_whole else [self._num_bytes]
        try:
            self._buffers = [np.empty(size, np.uint8).data for size in sizes]
        except MemoryError as error:
            raise WeightStreamError(
                f"version {manifest.version.number} of {self._num_bytes} bytes does not fit into memory"
            ) from error
        self._at, self._filled = 0, 0  # the buffer that comes next, and how far it is filled
        self._digests: dict[int, Future[str]] = {}  # of the buffers before it, for a whole version

    def add(self, chunk: ChunkLike) -> None:
        """Takes the next chunk. WeightStreamError if it leaves a gap, overlaps, or runs past the end."""
        end = chunk.offset + len(chunk.data)
        if chunk.offset != self._num_received or end > self._num_bytes:
            raise WeightStreamError(
                f"chunk [{chunk.offset}, {end}) of version {self.manifest.version.number} does not follow "
                f"byte {self._num_received} of {self._num_bytes}"
            )
        rest = memoryview(chunk.data)
        while rest:
            buffer = self._buffers[self._at]
            taken = min(len(rest), len(buffer) - self._filled)
            buffer[self._filled : self._filled + taken] = rest[:taken]
            rest, self._filled = rest[taken:], self._filled + taken
            if self._filled == len(buffer):
                if self._is_whole:
                    self._digests[self._at] = _digesting.submit(digest_of, buffer)
                self._at, self._filled = self._at + 1, 0
        self._num_received = end

    def commit(self, commit: Commit) -> list[RawTensor]:
        """The verified tensors. WeightStreamError if anything is missing or changed."""
        return list(self.finish(commit).tensors)

    def finish(self, commit: Commit) -> State:
        """The verified version, like `commit`. Takes a while: it reads every byte."""
        number = self.manifest.version.number
        if commit.version != self.manifest.version:
            raise WeightStreamError(f"the commit is for version {commit.version.number}, not for {number}")
        if self._num_received != self._num_bytes:
            raise WeightStreamError(f"version {number} ended after {self._num_received} of {self._num_bytes} bytes")
        if not self._is_whole:
            assert self._base is not None  # checked at first
            return apply_delta(self._base, self.manifest, self._buffers[0])
        for place, (info, data) in enumerate(zip(self.manifest.tensors, self._buffers, strict=True)):
            digest = self._digests.get(place)
            if (digest.result() if digest else digest_of(data)) != info.digest:
                raise WeightStreamError(f"tensor {info.name} of version {number} does not have its digest")
        tensors = [
            RawTensor(info.name, info.dtype, tuple(info.shape), data)
            for info, data in zip(self.manifest.tensors, self._buffers, strict=True)
        ]
        return State(self.manifest, tensors)


def _check_change(manifest: Manifest, base: State | None) -> None:
    number = manifest.version.number
    if base is None or manifest.base != base.version:
        raise WeightStreamError(
            f"version {number} comes as a change of version {manifest.base.number} ({manifest.base.digest}), "
            f"and here is {f'{base.version.number} ({base.version.digest})' if base else 'none'}"
        )
    encoded_bytes = sum(info.encoded_bytes for info in manifest.tensors)
    if encoded_bytes != manifest.payload_bytes or encoded_bytes > manifest.num_bytes:
        raise WeightStreamError(f"the parts of version {number} have {encoded_bytes} bytes, which its manifest denies")
