"""The wire's dtypes, and what everything else calls them: one table for arrays, weights, files and torch."""

from __future__ import annotations

from dataclasses import dataclass

from perilune.api.trajectory.v1 import trajectory_pb2 as trajectory
from perilune.api.trajectory.v1.trajectory_pb2 import Dtype


@dataclass(frozen=True)
class ItemType:
    """One dtype: the size of an element, and its names."""

    num_bytes: int
    torch: str  # as in torch.NAME
    safetensors: str  # in the header of a safetensors file
    numpy: str | None  # little-endian; None: numpy has no such numbers


ITEM_TYPES: dict[Dtype.ValueType, ItemType] = {
    trajectory.DTYPE_BOOL: ItemType(1, "bool", "BOOL", "?"),
    trajectory.DTYPE_UINT8: ItemType(1, "uint8", "U8", "u1"),
    trajectory.DTYPE_INT8: ItemType(1, "int8", "I8", "i1"),
    trajectory.DTYPE_INT32: ItemType(4, "int32", "I32", "<i4"),
    trajectory.DTYPE_INT64: ItemType(8, "int64", "I64", "<i8"),
    trajectory.DTYPE_FLOAT16: ItemType(2, "float16", "F16", "<f2"),
    trajectory.DTYPE_BFLOAT16: ItemType(2, "bfloat16", "BF16", None),
    trajectory.DTYPE_FLOAT32: ItemType(4, "float32", "F32", "<f4"),
    trajectory.DTYPE_FLOAT64: ItemType(8, "float64", "F64", "<f8"),
    trajectory.DTYPE_FLOAT8_E4M3: ItemType(1, "float8_e4m3fn", "F8_E4M3", None),
    trajectory.DTYPE_FLOAT8_E5M2: ItemType(1, "float8_e5m2", "F8_E5M2", None),
}
