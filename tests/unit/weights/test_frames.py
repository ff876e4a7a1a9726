from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perilune.api.trajectory.v1.trajectory_pb2 import DTYPE_UINT8, PolicyVersion
from perilune.api.weights.v1.weights_pb2 import Chunk, Commit, SubscribeResponse
from perilune.errors import WeightStreamError
from perilune.weights import CHUNK_BYTES, RawTensor, Stage, frames, manifest_of


def tensors_of(*contents: bytes) -> list[RawTensor]:
    return [RawTensor(f"t{i}", DTYPE_UINT8, (len(c),), memoryview(c)) for i, c in enumerate(contents)]


def receive(stream: Iterable[SubscribeResponse]) -> list[RawTensor]:
    stage = None
    for frame in stream:
        if frame.HasField("manifest"):
            stage = Stage(frame.manifest)
        elif frame.HasField("chunk"):
            assert stage
            stage.add(frame.chunk)
        else:
            assert stage
            return stage.commit(frame.commit)
    raise AssertionError("no commit")


@given(st.lists(st.binary(max_size=64), max_size=4))
def test_a_version_arrives_to_the_bit(contents: list[bytes]) -> None:
    tensors = tensors_of(*contents)
    received = receive(frames(manifest_of(3, tensors), tensors))
    assert [(t.name, bytes(t.data)) for t in received] == [(t.name, bytes(t.data)) for t in tensors]


def test_a_large_tensor_is_cut_into_chunks() -> None:
    tensors = tensors_of(bytes(2 * CHUNK_BYTES + 5), b"xyz")
    sizes = [len(f.chunk.data) for f in frames(manifest_of(1, tensors), tensors) if f.HasField("chunk")]
    assert sizes == [CHUNK_BYTES, CHUNK_BYTES, 5, 3]


def test_the_digest_is_that_of_the_state() -> None:
    a, b = tensors_of(b"aaaa", b"bbbb")
    assert manifest_of(1, [a, b]).version.digest == manifest_of(2, [b, a]).version.digest
    assert manifest_of(1, [a]).version.digest != manifest_of(1, [a, b]).version.digest
    reshaped = RawTensor("t0", DTYPE_UINT8, (2, 2), memoryview(b"aaaa"))
    assert manifest_of(1, [a]).version.digest != manifest_of(1, [reshaped]).version.digest


def tampered(how: str) -> list[SubscribeResponse]:
    tensors = tensors_of(b"abcd", b"efgh")
    stream = list(frames(manifest_of(1, tensors), tensors))
    manifest, first, second, commit = stream
    match how:
        case "flipped bit":
            second = SubscribeResponse(chunk=Chunk(offset=4, data=b"efgi"))
        case "missing chunk":
            return [manifest, first, commit]
        case "reordered":
            return [manifest, second, first, commit]
        case "repeated":
            return [manifest, first, first, second, commit]
        case "too long":
            second = SubscribeResponse(chunk=Chunk(offset=4, data=b"efghi"))
        case "other commit":
            commit = SubscribeResponse(commit=Commit(version=PolicyVersion(number=2, digest="x")))
        case "forged digest":
            manifest.manifest.version.digest = "0" * 32
        case "overlap":
            manifest.manifest.tensors[1].offset = 2
        case "wrong size":
            manifest.manifest.num_bytes = 9
    return [manifest, first, second, commit]


@pytest.mark.parametrize(
    "how",
    ["flipped bit", "missing chunk", "reordered", "repeated", "too long", "other commit", "forged digest", "overlap",
     "wrong size"],
)  # fmt: skip
def test_a_damaged_version_is_never_handed_out(how: str) -> None:
    with pytest.raises(WeightStreamError):
        receive(tampered(how))
