"""Arrays on the wire: packed little-endian bytes with an explicit dtype, never repeated scalars, never pickle.

Counting elements needs no numpy, so that the master, which never touches a tensor, runs without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from perilune.api.trajectory.v1 import trajectory_pb2 as trajectory
from perilune.dtypes import ITEM_TYPES
from perilune.errors import InvalidInputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Of the dtypes that numpy knows: its names, and bytes an element.
_NUMPY_OF_DTYPE = {code: (item.numpy, item.num_bytes) for code, item in ITEM_TYPES.items() if item.numpy}


def pack(array: NDArray) -> trajectory.PackedArray:
    """Packs a one-dimensional array. ValueError for another shape or a dtype that the wire does not know."""
    import numpy as np

    wanted = array.dtype.newbyteorder("<")
    for dtype, (name, _) in _NUMPY_OF_DTYPE.items():
        if array.ndim == 1 and wanted == np.dtype(name):
            return trajectory.PackedArray(dtype=dtype, data=array.astype(wanted, copy=False).tobytes())
    raise ValueError(f"cannot pack an array of dtype {array.dtype} and shape {array.shape}")


def unpack(packed: trajectory.PackedArray) -> NDArray:
    """The array that was packed, read-only. InvalidInputError if the bytes are no whole number of elements."""
    import numpy as np

    num_elements(packed)
    return np.frombuffer(packed.data, np.dtype(_NUMPY_OF_DTYPE[packed.dtype][0]))


def num_elements(packed: trajectory.PackedArray) -> int:
    """The number of elements that were packed. InvalidInputError if the bytes are no whole number of them."""
    if packed.dtype not in _NUMPY_OF_DTYPE:
        raise InvalidInputError(f"cannot read an array of dtype {packed.dtype}; known are {sorted(_NUMPY_OF_DTYPE)}")
    name, size = _NUMPY_OF_DTYPE[packed.dtype]
    if len(packed.data) % size:
        raise InvalidInputError(f"{len(packed.data)} bytes are no whole number of {name} elements")
    return len(packed.data) // size


def check_arrays(sample: trajectory.Trajectory) -> None:
    """InvalidInputError if an array of a trajectory is damaged: its bytes are no whole number of elements, its dtype is
    not the contract's, or a segment has more or fewer log-probabilities than tokens."""
    if sample.prompt_tokens.data:
        _check_dtype(sample.prompt_tokens, trajectory.DTYPE_INT32, "prompt_tokens")
    for place, segment in enumerate(sample.segments):
        num_tokens = _check_dtype(segment.tokens, trajectory.DTYPE_INT32, f"segments[{place}].tokens")
        for name, packed in (
            ("logprobs", segment.logprobs),
            ("full_logprobs", segment.full_logprobs),
            ("teacher_logprobs", segment.teacher_logprobs),
            ("teacher_kl", segment.teacher_kl),
        ):
            if not packed.data:
                continue
            num_logprobs = _check_dtype(packed, trajectory.DTYPE_FLOAT32, f"segments[{place}].{name}")
            if num_logprobs != num_tokens:
                raise InvalidInputError(f"segments[{place}] has {num_tokens} tokens and {num_logprobs} {name}")


def _check_dtype(packed: trajectory.PackedArray, dtype: trajectory.Dtype.ValueType, name: str) -> int:
    """The number of elements. InvalidInputError names the array."""
    if packed.dtype != dtype:
        raise InvalidInputError(f"{name} has dtype {packed.dtype}, and must have {trajectory.Dtype.Name(dtype)}")
    try:
        return num_elements(packed)
    except InvalidInputError as error:
        raise InvalidInputError(f"{name}: {error}") from error


def num_response_tokens(sample: trajectory.Trajectory) -> int:
    """Tokens of all segments, the environment's included; reads lengths only, not the arrays."""
    return sum(num_elements(segment.tokens) for segment in sample.segments)


def num_written_tokens(sample: trajectory.Trajectory) -> int:
    """Tokens that the policy wrote, without an environment's: a response's length, as rewards and budgets have it."""
    return sum(num_elements(segment.tokens) for segment in sample.segments if not segment.environment)
