"""The difference of two versions, lossless to the bit.

A tensor's elements are taken as unsigned integers of their size, whatever they mean: float, quantised or counter. What
is written of an element is the difference of the two integers, modulo their range, folded so that small steps up and
down are small numbers. An optimiser moves most weights to a neighbouring representable value, so nearly all
differences are ±1, where new values (AstraFlow) have a dozen random bits each and XOR smears every carry.

sparse   gaps between the elements that changed, and their differences: for few changes
dense    the differences of all elements: for many
raw      the new bytes: where neither pays

Numbers are split into planes, all lowest bytes first, then all second ones, and compressed by Zstandard: a plane is
either nearly constant or nearly random, and the entropy coder takes what there is to take.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import zstandard
from numpy.typing import NDArray

from perilune.api.weights.v1 import weights_pb2
from perilune.api.weights.v1.weights_pb2 import Encoding, Manifest, TensorInfo
from perilune.dtypes import ITEM_TYPES
from perilune.errors import WeightStreamError
from perilune.weights.parallel import in_threads
from perilune.weights.tensors import RawTensor, State, digest_of

ZSTD_LEVEL = 1  # higher ones find next to nothing in what is left
SPARSE_BELOW, DENSE_ABOVE = 0.6, 0.3  # shares of changed elements between which both are tried
PAYS_BELOW = 0.9  # of the whole version's bytes; a delta of more is not worth the work
LONG_GAP = 0xFFFF  # a gap code that stands for so many unchanged elements, and for no changed one
# Elements of a tensor that are looked at together: they stay in the cache, and what is made of them is small.
BLOCK_ELEMENTS = 1 << 20


@dataclass(frozen=True)
class Encoded:
    """A tensor as a delta writes it."""

    encoding: Encoding.ValueType
    data: bytes | memoryview
    num_changed: int = 0


@dataclass(frozen=True)
class Delta:
    """A version as a change of another: the manifest says of which, and how each tensor is written in the payload."""

    manifest: Manifest
    payload: bytes

    @property
    def num_bytes(self) -> int:
        """The size of its payload."""
        return self.manifest.payload_bytes


@dataclass(frozen=True)
class _Change:
    """A tensor before and after, as integers."""

    old_N: NDArray
    new_N: NDArray

    @staticmethod
    def of(old: memoryview, new: memoryview, item_bytes: int) -> _Change:
        return _Change(_integers(old, item_bytes), _integers(new, item_bytes))

    def blocks(self) -> list[_Change]:
        """The parts that threads look through."""
        return [_Change(self.old_N[block], self.new_N[block]) for block in _blocks(len(self.new_N))]


def make_delta(base: State, target: State) -> Delta | None:
    """The change from one version to another; None where the whole version is hardly larger. Computes in threads."""
    olds = {info.name: (info, raw) for info, raw in zip(base.manifest.tensors, base.tensors, strict=True)}
    pairs = [
        (info, new, *olds.get(info.name, (None, None)))
        for info, new in zip(target.manifest.tensors, target.tensors, strict=True)
    ]
    changes = {
        info.name: _Change.of(old.data, new.data, ITEM_TYPES[info.dtype].num_bytes)
        for info, new, old_info, old in pairs
        if old and old_info and _same_kind(old_info, info) and old_info.digest != info.digest
    }
    found = _encode_all(changes)
    manifest, parts = Manifest(), list[bytes | memoryview]()
    manifest.CopyFrom(target.manifest)
    for info, (_, new, old_info, _) in zip(manifest.tensors, pairs, strict=True):
        is_same = old_info is not None and _same_kind(old_info, info) and old_info.digest == info.digest
        as_it_is = Encoded(weights_pb2.ENCODING_SAME, b"") if is_same else _as_it_is(new.data)
        encoded = found.get(info.name, as_it_is)
        info.encoding, info.num_changed = encoded.encoding, encoded.num_changed
        info.encoded_bytes = len(encoded.data)
        parts.append(encoded.data)
    payload_bytes = sum(map(len, parts))
    if payload_bytes > PAYS_BELOW * manifest.num_bytes:
        return None
    manifest.base.CopyFrom(base.version)
    manifest.payload_bytes = payload_bytes
    return Delta(manifest, b"".join(parts))


def _encode_all(changes: Mapping[str, _Change]) -> dict[str, Encoded]:
    """Every change as it is written. Threads share large tensors while they look for what changed."""
    num_bytes = sum(change.new_N.nbytes for change in changes.values())
    blocks = {name: change.blocks() for name, change in changes.items()}
    places = iter(in_threads(_changed_places, [block for each in blocks.values() for block in each], num_bytes))
    jobs = [(change, [next(places) for _ in blocks[name]]) for name, change in changes.items()]
    return dict(zip(changes, in_threads(lambda job: _encoded(*job), jobs, num_bytes), strict=True))


def _same_kind(old: TensorInfo, new: TensorInfo) -> bool:
    return (old.dtype, old.shape, old.whole_shape, old.start) == (new.dtype, new.shape, new.whole_shape, new.start)


def encode(old: memoryview, new: memoryview, item_bytes: int) -> Encoded:
    """The shortest way to write `new` for one who has `old`. Both have as many bytes, a multiple of item_bytes."""
    change = _Change.of(old, new, item_bytes)
    return _encoded(change, [_changed_places(block) for block in change.blocks()])


def _as_it_is(data: memoryview) -> Encoded:
    return Encoded(weights_pb2.ENCODING_UNSPECIFIED, data)


def _encoded(change: _Change, places: list[NDArray[np.uint32]]) -> Encoded:
    """The shortest way to write a change of which the changed elements of each block are known."""
    num_changed = sum(map(len, places))
    if not num_changed:
        return Encoded(weights_pb2.ENCODING_SAME, b"")
    share = num_changed / len(change.new_N)
    ways = [_as_it_is(change.new_N.data.cast("B"))]
    if share < SPARSE_BELOW:
        ways.append(_sparse(change, places, num_changed))
    if share > DENSE_ABOVE:
        planes = _dense_planes(change.old_N, change.new_N)
        ways.append(Encoded(weights_pb2.ENCODING_DENSE, _compress(planes)))
    return min(ways, key=lambda way: len(way.data))


def decode(info: TensorInfo, old: memoryview | None, data: memoryview) -> memoryview:
    """The tensor's new bytes.

    Args:
        info: what the delta's manifest says of the tensor.
        old: the bytes of the base's tensor of that name; None if it has none.
        data: the tensor's part of the payload.

    Raises:
        WeightStreamError: these are no bytes that `encode` writes for such a tensor. That the result is the right one,
            the digest says.
    """
    if info.encoding == weights_pb2.ENCODING_UNSPECIFIED:
        _check(info, len(data) == info.num_bytes)
        return data
    if old is None or old.nbytes != info.num_bytes:
        raise WeightStreamError(f"the delta changes tensor {info.name}, which its base does not have")
    item_bytes = ITEM_TYPES[info.dtype].num_bytes
    old_N = _integers(old, item_bytes)
    if info.encoding == weights_pb2.ENCODING_SAME:
        _check(info, len(data) == 0)
        return old
    if info.encoding == weights_pb2.ENCODING_SPARSE:
        return _decode_sparse(info, old_N, data).data.cast("B")
    if info.encoding == weights_pb2.ENCODING_DENSE:
        return _decode_dense(info, old_N, data).data.cast("B")
    raise WeightStreamError(f"tensor {info.name} is written in encoding {info.encoding}, which is not known here")


def apply_delta(base: State, manifest: Manifest, payload: memoryview) -> State:
    """The version that a delta makes of its base, verified. WeightStreamError if it is not what the manifest says."""
    if manifest.base != base.version:
        raise WeightStreamError(
            f"version {manifest.version.number} comes as a change of {manifest.base.number} ({manifest.base.digest}), "
            f"and {base.version.number} ({base.version.digest}) is what is here"
        )
    olds = {info.name: (info, raw) for info, raw in zip(base.manifest.tensors, base.tensors, strict=True)}
    ends = list(itertools.accumulate(info.encoded_bytes for info in manifest.tensors))
    jobs = [
        (info, *olds.get(info.name, (None, None)), payload[end - info.encoded_bytes : end])
        for info, end in zip(manifest.tensors, ends, strict=True)
    ]
    tensors = in_threads(lambda job: _applied(manifest.version.number, *job), jobs, manifest.num_bytes)
    return State(_as_whole(manifest), tensors)


def _applied(
    number: int, info: TensorInfo, old_info: TensorInfo | None, old: RawTensor | None, part: memoryview
) -> RawTensor:
    """A tensor of the new version, verified."""
    data = decode(info, old.data if old and old_info and _same_kind(old_info, info) else None, part)
    is_known = old_info is not None and info.encoding == weights_pb2.ENCODING_SAME
    if (old_info.digest if is_known and old_info else digest_of(data)) != info.digest:
        raise WeightStreamError(f"tensor {info.name} of version {number} does not have its digest")
    # A part is a view of the whole payload, which would stay in memory with it.
    kept = memoryview(bytes(data)) if info.encoding == weights_pb2.ENCODING_UNSPECIFIED else data
    return RawTensor(info.name, info.dtype, tuple(info.shape), kept)


def _as_whole(manifest: Manifest) -> Manifest:
    """The manifest of the same version, with nothing of how it came."""
    whole = Manifest(version=manifest.version, num_bytes=manifest.num_bytes)
    if manifest.HasField("shard"):
        whole.shard.CopyFrom(manifest.shard)
    for info in manifest.tensors:
        copy = whole.tensors.add()
        copy.CopyFrom(info)
        for field in ("encoding", "encoded_bytes", "num_changed"):
            copy.ClearField(field)
    return whole


# --- Numbers ------------------------------------------------------------------------------------------------------


def _blocks(num_elements: int) -> list[slice]:
    return [slice(start, start + BLOCK_ELEMENTS) for start in range(0, num_elements, BLOCK_ELEMENTS)]


def _integers(data: memoryview, item_bytes: int) -> NDArray:
    return np.frombuffer(data, f"<u{item_bytes}")


def _fold(difference_N: NDArray) -> NDArray:
    """0, -1, 1, -2, 2, … become 0, 1, 2, 3, 4, …, modulo the integers' range."""
    sign_bit = 8 * difference_N.dtype.itemsize - 1
    one, zero = difference_N.dtype.type(1), difference_N.dtype.type(0)
    return (difference_N << one) ^ (zero - (difference_N >> difference_N.dtype.type(sign_bit)))


def _unfold(folded_N: NDArray) -> NDArray:
    one, zero = folded_N.dtype.type(1), folded_N.dtype.type(0)
    return (folded_N >> one) ^ (zero - (folded_N & one))


def _planes(numbers_N: NDArray) -> NDArray[np.uint8]:
    """Shape (item bytes, N): the lowest byte of every number, then the next one of every number, …"""
    return np.ascontiguousarray(numbers_N.view(np.uint8).reshape(-1, numbers_N.dtype.itemsize).T)


def _from_planes(planes: NDArray[np.uint8], item_bytes: int) -> NDArray:
    return np.ascontiguousarray(planes.reshape(item_bytes, -1).T).reshape(-1).view(f"<u{item_bytes}")


def _gap_codes(positions_C: NDArray[np.int64]) -> NDArray[np.uint16]:
    """Unchanged elements before each changed one; a code of LONG_GAP goes on with the next code."""
    gaps_C = np.diff(positions_C, prepend=-1) - 1
    num_long_C = gaps_C // LONG_GAP
    codes = np.full(len(gaps_C) + int(num_long_C.sum()), LONG_GAP, "<u2")
    codes[np.cumsum(num_long_C) + np.arange(len(gaps_C))] = gaps_C % LONG_GAP
    return codes


def _positions(codes: NDArray[np.uint16]) -> NDArray[np.int64]:
    ends_element = codes != LONG_GAP
    return (np.cumsum(codes.astype(np.int64) + ends_element) - 1)[ends_element]


def _changed_places(block: _Change) -> NDArray[np.uint32]:
    """Returns which elements of a block changed."""
    return np.flatnonzero(block.old_N != block.new_N).astype(np.uint32)


def _sparse(change: _Change, places: list[NDArray[np.uint32]], num_changed: int) -> Encoded:
    positions_C, folded_C = np.empty(num_changed, np.int64), np.empty(num_changed, change.new_N.dtype)
    found = 0
    for number, (block, changed) in enumerate(zip(change.blocks(), places, strict=True)):
        here = slice(found, found := found + len(changed))
        positions_C[here] = changed + np.int64(number * BLOCK_ELEMENTS)
        folded_C[here] = _fold(block.new_N[changed] - block.old_N[changed])
    content = np.concatenate([_planes(_gap_codes(positions_C)).reshape(-1), _planes(folded_C).reshape(-1)])
    return Encoded(weights_pb2.ENCODING_SPARSE, _compress(content), num_changed)


def _decode_sparse(info: TensorInfo, old_N: NDArray, data: memoryview) -> NDArray:
    item_bytes = old_N.dtype.itemsize
    most_codes = info.num_changed + len(old_N) // LONG_GAP
    content = _decompress(info, data, 2 * most_codes + item_bytes * info.num_changed)
    codes_bytes = len(content) - item_bytes * info.num_changed
    _check(info, info.num_changed <= len(old_N) and codes_bytes >= 0 and codes_bytes % 2 == 0)
    positions_C = _positions(_from_planes(content[:codes_bytes], 2))
    _check(info, len(positions_C) == info.num_changed > 0 and positions_C[-1] < len(old_N))
    new_N = old_N.copy()
    new_N[positions_C] += _unfold(_from_planes(content[codes_bytes:], item_bytes))
    return new_N


def _dense_planes(old_N: NDArray, new_N: NDArray) -> NDArray[np.uint8]:
    planes = np.empty((new_N.dtype.itemsize, len(new_N)), np.uint8)
    for block in _blocks(len(new_N)):
        planes[:, block] = _planes(_fold(new_N[block] - old_N[block]))
    return planes


def _decode_dense(info: TensorInfo, old_N: NDArray, data: memoryview) -> NDArray:
    item_bytes = old_N.dtype.itemsize
    content = _decompress(info, data, info.num_bytes)
    _check(info, len(content) == info.num_bytes)
    planes, new_N = content.reshape(item_bytes, -1), old_N.copy()
    for block in _blocks(len(new_N)):
        new_N[block] += _unfold(_from_planes(planes[:, block], item_bytes))
    return new_N


def _compress(content: NDArray[np.uint8]) -> bytes:
    return zstandard.ZstdCompressor(level=ZSTD_LEVEL).compress(content.reshape(-1).data)


def _decompress(info: TensorInfo, data: memoryview, most_bytes: int) -> NDArray[np.uint8]:
    """Decompresses at most so many bytes: a forged frame must not fill the memory."""
    try:
        num_bytes = zstandard.frame_content_size(data)
        _check(info, 0 <= num_bytes <= most_bytes)
        return np.frombuffer(zstandard.ZstdDecompressor().decompress(data), np.uint8)
    except zstandard.ZstdError as error:
        raise WeightStreamError(f"the change of tensor {info.name} cannot be decompressed: {error}") from error


def _check(info: TensorInfo, holds: bool) -> None:
    if not holds:
        raise WeightStreamError(f"the change of tensor {info.name} is not one of such a tensor")
