"""The parts of several ranks, and the whole again, to the bit; parts of two versions are never mixed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perilune.api.trajectory.v1.trajectory_pb2 import DTYPE_BFLOAT16, DTYPE_FLOAT32
from perilune.errors import WeightStreamError
from perilune.weights import RawTensor, Stage, State, frames
from perilune.weights.shards import Part, assemble, part_state, region, seal
from perilune.weights.tensors import digest_of


def raw(name: str, values: np.ndarray) -> RawTensor:
    dtype = DTYPE_BFLOAT16 if values.dtype.itemsize == 2 else DTYPE_FLOAT32
    return RawTensor(name, dtype, values.shape, memoryview(values.tobytes()))


def cut(name: str, values: np.ndarray, axis: int, num_ranks: int) -> list[Part]:
    """As FSDP cuts: equal slices but the last, which may be shorter or empty."""
    each = -(-values.shape[axis] // num_ranks)
    parts = []
    for rank in range(num_ranks):
        low = min(rank * each, values.shape[axis])
        start = [0] * values.ndim
        start[axis] = low
        piece = values.take(range(low, min(low + each, values.shape[axis])), axis)
        parts.append(Part(raw(name, piece), values.shape, tuple(start)))
    return parts


def sealed(number: int, parts: list[list[Part]]) -> list[State]:
    states = [part_state(number, rank, len(parts), part) for rank, part in enumerate(parts)]
    return [seal(state, [each.manifest for each in states]) for state in states]


def two_ranks(number: int = 3, seed: int = 0) -> tuple[list[State], np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    wide, bias = rng.integers(0, 9, (5, 4)).astype("<u2"), rng.random(3).astype("<f4")
    whole_bias = Part(raw("bias", bias), (3,), (0,))
    first, second = cut("wide", wide, 0, 2)
    return sealed(number, [[first, whole_bias], [second]]), wide, bias


def test_the_whole_is_put_together_from_all_ranks() -> None:
    states, wide, bias = two_ranks()
    whole = assemble(states[::-1])
    assert {tensor.name: bytes(tensor.data) for tensor in whole.tensors} == {
        "wide": wide.tobytes(),
        "bias": bias.tobytes(),
    }
    assert whole.version == states[0].version == states[1].version
    infos = {info.name: (tuple(info.shape), info.digest) for info in whole.manifest.tensors}
    assert infos["wide"] == ((5, 4), digest_of(memoryview(wide.tobytes())))


@given(st.data())
def test_any_cut_gives_any_region_back(data: st.DataObject) -> None:
    shape = tuple(data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=3)))
    axis = data.draw(st.integers(0, len(shape) - 1))
    values = np.arange(np.prod(shape), dtype="<u2").reshape(shape)
    states = sealed(0, [[part] for part in cut("w", values, axis, data.draw(st.integers(1, 5)))])
    start = tuple(data.draw(st.integers(0, size - 1)) for size in shape)
    box = tuple(data.draw(st.integers(1, size - low)) for size, low in zip(shape, start, strict=True))
    wanted = values[tuple(slice(low, low + size) for low, size in zip(start, box, strict=True))]
    assert bytes(region(states, "w", start, box).data) == wanted.tobytes()
    assert bytes(assemble(states).tensors[0].data) == values.tobytes()


def test_each_ranks_stream_is_verified_like_any_other() -> None:
    states, _, _ = two_ranks()
    received = []
    for state in states:
        head, *chunks, commit = frames(state.manifest, state.tensors)
        stage = Stage(head.manifest)
        for frame in chunks:
            stage.add(frame.chunk)
        received.append(stage.finish(commit.commit))
    assert assemble(received).version == states[0].version


def test_parts_of_two_versions_are_never_mixed() -> None:
    (first, _), (_, second) = two_ranks(3, seed=0)[0], two_ranks(3, seed=1)[0]
    with pytest.raises(WeightStreamError, match="parts of several versions"):
        assemble([first, second])


def test_missing_and_repeated_ranks_are_told() -> None:
    (first, second), _, _ = two_ranks()
    with pytest.raises(WeightStreamError, match="parts of 1 ranks are here, which is not all"):
        assemble([first])
    with pytest.raises(WeightStreamError, match=r"ranks \[1, 1\]"):
        assemble([second, second])
    with pytest.raises(WeightStreamError, match="fill 12 of 20 elements"):
        region([first], "wide", (0, 0), (5, 4))
    with pytest.raises(WeightStreamError, match="no rank has the tensor other"):
        region([first], "other", (0,), (1,))


def test_a_part_that_is_elsewhere_than_it_says_has_another_digest() -> None:
    (first, second), _, _ = two_ranks()
    second.manifest.tensors[0].start[0] = 2
    with pytest.raises(WeightStreamError, match="not what its digest says"):
        assemble([first, second])
