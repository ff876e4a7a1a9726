"""Deltas: any two states round-trip to the bit, and what is no delta of a state is refused."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
import zstandard
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from perilune.api.trajectory.v1 import trajectory_pb2 as trajectory
from perilune.api.weights.v1 import weights_pb2
from perilune.dtypes import ITEM_TYPES
from perilune.errors import WeightStreamError
from perilune.weights import Delta, RawTensor, State, make_delta
from perilune.weights.delta import LONG_GAP, apply_delta, decode, encode

DTYPES = {
    "bf16": trajectory.DTYPE_BFLOAT16,
    "fp16": trajectory.DTYPE_FLOAT16,
    "fp32": trajectory.DTYPE_FLOAT32,
    "fp64": trajectory.DTYPE_FLOAT64,
    "e4m3": trajectory.DTYPE_FLOAT8_E4M3,
    "e5m2": trajectory.DTYPE_FLOAT8_E5M2,
    "int8": trajectory.DTYPE_INT8,
    "bool": trajectory.DTYPE_BOOL,
}


def tensor(name: str, dtype: int, data: bytes) -> RawTensor:
    return RawTensor(name, dtype, (len(data) // ITEM_TYPES[dtype].num_bytes,), memoryview(data))


def contents(state: State) -> list[tuple[str, int, tuple[int, ...], bytes]]:
    return [(raw.name, raw.dtype, raw.shape, bytes(raw.data)) for raw in state.tensors]


def payload(delta: Delta) -> memoryview:
    return memoryview(delta.payload)


@st.composite
def changes(draw: st.DrawFn) -> tuple[int, bytes, bytes]:
    """A dtype's tensor before and after: any bytes, so NaNs, infinities and signed zeros too."""
    dtype = draw(st.sampled_from(sorted(ITEM_TYPES)))
    size = ITEM_TYPES[dtype].num_bytes * draw(st.integers(0, 300))
    old = draw(st.binary(min_size=size, max_size=size))
    if draw(st.booleans()):
        return dtype, old, draw(st.binary(min_size=size, max_size=size))
    new = bytearray(old)
    for place in draw(st.lists(st.integers(0, size - 1), max_size=9)) if size else []:
        new[place] = draw(st.integers(0, 255))
    return dtype, old, bytes(new)


@given(st.lists(changes(), max_size=4))
def test_any_two_states_round_trip_to_the_bit(tensors: list[tuple[int, bytes, bytes]]) -> None:
    base = State.of(1, [tensor(f"t{i}", dtype, old) for i, (dtype, old, _) in enumerate(tensors)])
    target = State.of(2, [tensor(f"t{i}", dtype, new) for i, (dtype, _, new) in enumerate(tensors)])
    delta = make_delta(base, target)
    if delta is None:  # the whole version is as small
        return
    made = apply_delta(base, delta.manifest, payload(delta))
    assert contents(made) == contents(target)
    assert made.manifest == target.manifest


@given(changes())
@example((trajectory.DTYPE_BFLOAT16, b"\0\0" * 70_000, b"\0\0" * (LONG_GAP + 7) + b"\x80\x3f" + b"\0\0" * 4457))
@example((trajectory.DTYPE_BFLOAT16, b"\0\0" * 70_000, b"\0\0" * LONG_GAP + b"\x80\x3f" + b"\0\0" * 4464))
@example((trajectory.DTYPE_UINT8, bytes(200_000), bytes(199_999) + b"\1"))
def test_every_encoding_gives_the_tensor_back(change: tuple[int, bytes, bytes]) -> None:
    dtype, old, new = change
    encoded = encode(memoryview(old), memoryview(new), ITEM_TYPES[dtype].num_bytes)
    assert len(encoded.data) <= len(new)
    info = weights_pb2.TensorInfo(
        dtype=dtype, num_bytes=len(new), encoding=encoded.encoding, num_changed=encoded.num_changed
    )
    assert bytes(decode(info, memoryview(old), memoryview(encoded.data))) == new


def stepped(old: NDArray, share: float, seed: int = 0) -> NDArray:
    """Every changed element goes to a neighbouring integer, as after a small optimiser step."""
    rng = np.random.default_rng(seed)
    where = rng.random(len(old)) < share
    step = rng.choice(np.array([1, -1], np.int64), len(old)).astype(old.dtype)
    return np.where(where, old + step, old)


@pytest.mark.parametrize("dtype", sorted(DTYPES))
@pytest.mark.parametrize(
    ("share", "encoding", "bits"),  # an element: the positions' entropy and one bit a change are 0, 0.09, 0.92, 1.24
    [(0, "SAME", 0), (0.01, "SPARSE", 0.13), (0.2, "SPARSE", 1.2), (0.95, "DENSE", 2)],
)
def test_the_share_of_changes_decides_the_encoding(dtype: str, share: float, encoding: str, bits: float) -> None:
    old = np.random.default_rng(1).integers(0, 255, 40_000).astype(f"<u{ITEM_TYPES[DTYPES[dtype]].num_bytes}")
    new = stepped(old, share)
    encoded = encode(memoryview(old).cast("B"), memoryview(new).cast("B"), old.dtype.itemsize)
    assert weights_pb2.Encoding.Name(encoded.encoding) == f"ENCODING_{encoding}"
    assert 8 * len(encoded.data) <= bits * len(old)


def test_random_values_are_written_as_they_are() -> None:
    rng = np.random.default_rng(0)
    old, new = rng.bytes(4096), rng.bytes(4096)
    encoded = encode(memoryview(old), memoryview(new), 2)
    assert encoded.encoding == weights_pb2.ENCODING_UNSPECIFIED
    assert encoded.data == new
    base, target = (State.of(i, [tensor("t", DTYPES["bf16"], data)]) for i, data in enumerate((old, new)))
    assert make_delta(base, target) is None  # whole is as small


def test_tensors_may_come_go_and_change_their_shape() -> None:
    same = tensor("same", DTYPES["bf16"], bytes(60_000))
    base = State.of(1, [same, tensor("goes", DTYPES["int8"], b"abcd"), tensor("grows", DTYPES["int8"], b"ab")])
    target = State.of(2, [tensor("comes", DTYPES["fp32"], b"efgh"), same, tensor("grows", DTYPES["int8"], b"abc")])
    delta = make_delta(base, target)
    assert delta is not None
    assert delta.num_bytes == 4 + 0 + 3
    assert contents(apply_delta(base, delta.manifest, payload(delta))) == contents(target)


def test_what_a_delta_says_by_hand() -> None:
    """Elements 2 and 5 of eight change by +1 and -2: gaps 2, 2; folded differences 2, 3."""
    old = np.arange(10, 18, dtype="<u2")
    new = old.copy()
    new[2] += 1
    new[5] -= 2
    info = weights_pb2.TensorInfo(
        dtype=DTYPES["bf16"], num_bytes=16, encoding=weights_pb2.ENCODING_SPARSE, num_changed=2
    )
    content = bytes([2, 2, 0, 0]) + bytes([2, 3, 0, 0])  # low bytes, then high bytes
    data = zstandard.compress(content)
    assert bytes(decode(info, memoryview(old).cast("B"), memoryview(data))) == new.tobytes()


@pytest.mark.parametrize("encoding", [weights_pb2.ENCODING_SPARSE, weights_pb2.ENCODING_DENSE])
@given(data=st.data())
def test_a_forged_change_is_an_error_and_never_a_crash(encoding: int, data: st.DataObject) -> None:
    content = data.draw(st.binary(max_size=80))
    forged = data.draw(st.sampled_from([content, zstandard.compress(content), zstandard.compress(bytes(10_000_000))]))
    info = weights_pb2.TensorInfo(
        dtype=DTYPES["bf16"], num_bytes=64, encoding=encoding, num_changed=data.draw(st.integers(0, 1 << 62))
    )
    with contextlib.suppress(WeightStreamError):
        assert len(decode(info, memoryview(bytes(64)), memoryview(forged))) == 64


def test_a_delta_of_another_base_is_refused() -> None:
    states = [State.of(i, [tensor("t", DTYPES["int8"], bytes([i]) + bytes(400))]) for i in range(3)]
    delta = make_delta(states[0], states[1])
    assert delta is not None
    with pytest.raises(WeightStreamError, match="comes as a change of 0"):
        apply_delta(states[2], delta.manifest, payload(delta))


def test_a_flipped_bit_anywhere_is_refused() -> None:
    old = np.random.default_rng(0).integers(0, 255, 3000).astype("<u2")
    new = stepped(old, 0.02)
    base, target = (State.of(i, [tensor("t", DTYPES["bf16"], values.tobytes())]) for i, values in enumerate((old, new)))
    delta = make_delta(base, target)
    assert delta is not None
    whole = bytes(payload(delta))
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        try:
            made = apply_delta(base, delta.manifest, memoryview(damaged))
        except WeightStreamError:
            continue
        assert contents(made) == contents(target)  # the bit was one that Zstandard does not read
