"""Arrays on the wire: packed little-endian bytes with an explicit dtype, never repeated scalars, never pickle."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from perilune.api.trajectory.v1 import trajectory_pb2 as trajectory
from perilune.errors import InvalidInputError

_NUMPY_OF_DTYPE = {
    trajectory.DTYPE_BOOL: np.dtype("?"),
    trajectory.DTYPE_UINT8: np.dtype("u1"),
    trajectory.DTYPE_INT8: np.dtype("i1"),
    trajectory.DTYPE_INT32: np.dtype("<i4"),
    trajectory.DTYPE_INT64: np.dtype("<i8"),
    trajectory.DTYPE_FLOAT16: np.dtype("<f2"),
    trajectory.DTYPE_FLOAT32: np.dtype("<f4"),
    trajectory.DTYPE_FLOAT64: np.dtype("<f8"),
}
_DTYPE_OF_NUMPY = {numpy_dtype: dtype for dtype, numpy_dtype in _NUMPY_OF_DTYPE.items()}


def pack(array: NDArray) -> trajectory.PackedArray:
    """Packs a one-dimensional array. ValueError for another shape or a dtype that the wire does not know."""
    dtype = _DTYPE_OF_NUMPY.get(array.dtype.newbyteorder("<"))
    if dtype is None or array.ndim != 1:
        raise ValueError(f"cannot pack an array of dtype {array.dtype} and shape {array.shape}")
    return trajectory.PackedArray(dtype=dtype, data=array.astype(_NUMPY_OF_DTYPE[dtype], copy=False).tobytes())


def unpack(packed: trajectory.PackedArray) -> NDArray:
    """The array that was packed, read-only. InvalidInputError if the bytes are no whole number of elements."""
    numpy_dtype = _NUMPY_OF_DTYPE.get(packed.dtype)
    if numpy_dtype is None:
        raise InvalidInputError(f"cannot read an array of dtype {packed.dtype}; known are {sorted(_NUMPY_OF_DTYPE)}")
    if len(packed.data) % numpy_dtype.itemsize:
        raise InvalidInputError(f"{len(packed.data)} bytes are no whole number of {numpy_dtype} elements")
    return np.frombuffer(packed.data, numpy_dtype)


def num_response_tokens(sample: trajectory.Trajectory) -> int:
    """Tokens of all segments, the environment's included; reads lengths only, not the arrays."""
    return sum(
        len(segment.tokens.data) // _NUMPY_OF_DTYPE[segment.tokens.dtype].itemsize for segment in sample.segments
    )
