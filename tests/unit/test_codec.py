import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perilune.api.trajectory.v1.trajectory_pb2 import (
    DTYPE_BFLOAT16,
    DTYPE_FLOAT32,
    DTYPE_INT32,
    PackedArray,
    Segment,
    Trajectory,
)
from perilune.codec import num_response_tokens, num_written_tokens, pack, unpack
from perilune.errors import InvalidInputError


def test_tokens_travel_as_packed_little_endian_bytes() -> None:
    packed = pack(np.array([1, 258, -1], np.int32))
    assert packed.dtype == DTYPE_INT32
    assert packed.data == bytes([1, 0, 0, 0, 2, 1, 0, 0, 255, 255, 255, 255])


@pytest.mark.parametrize("dtype", ["?", "u1", "i1", "<i4", "<i8", "<f2", "<f4", "<f8", ">i4", ">f8"])
@given(values=st.lists(st.integers(0, 1), max_size=5))
def test_every_dtype_comes_back(dtype: str, values: list[int]) -> None:
    array = np.array(values, dtype)
    assert unpack(pack(array)).tolist() == array.tolist()


@pytest.mark.parametrize("array", [np.zeros((2, 2), np.float32), np.zeros(3, np.complex64), np.zeros(3, np.uint32)])
def test_what_the_wire_does_not_know_is_refused(array: np.ndarray) -> None:
    with pytest.raises(ValueError, match="cannot pack"):
        pack(array)


def test_broken_bytes_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="5 bytes are no whole number"):
        unpack(PackedArray(dtype=DTYPE_FLOAT32, data=b"12345"))
    with pytest.raises(InvalidInputError, match="cannot read"):
        unpack(PackedArray(dtype=DTYPE_BFLOAT16, data=b"12"))


def test_length_counts_all_segments() -> None:
    segments = [Segment(tokens=pack(np.arange(n, dtype=np.int32))) for n in (3, 0, 4)]
    assert num_response_tokens(Trajectory(segments=segments)) == 7
    segments[0].environment = True
    assert num_written_tokens(Trajectory(segments=segments)) == 4
