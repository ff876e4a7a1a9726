"""Dequantises what the trainer quantised for the wire, into an engine's floating-point tensors. No torch.

A matrix W comes as `W`, of one byte an element, and `W.scale`, float32, one a row: W = bytes · scale. The version's
digest is that of what came, so it names what is served, and not what was trained.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from perilune.api.trajectory.v1 import trajectory_pb2 as trajectory
from perilune.api.trajectory.v1.trajectory_pb2 import Dtype
from perilune.errors import WeightStreamError
from perilune.weights.tensors import RawTensor

SCALE_SUFFIX = ".scale"


def dequantized(tensors: Sequence[RawTensor]) -> Sequence[RawTensor]:
    """The tensors with every quantised matrix in the others' dtype, float32 or bfloat16; others are as they came.

    WeightStreamError if a scale does not fit its matrix.
    """
    scales = {raw.name: raw for raw in tensors if raw.name.endswith(SCALE_SUFFIX)}
    matrices = {raw.name + SCALE_SUFFIX for raw in tensors} & scales.keys()
    if not matrices:
        return tensors
    in_full = {raw.dtype for raw in tensors if raw.name + SCALE_SUFFIX not in matrices and raw.name not in matrices}
    dtype = trajectory.DTYPE_FLOAT32 if trajectory.DTYPE_FLOAT32 in in_full else trajectory.DTYPE_BFLOAT16
    return [
        _matrix(raw, scales[raw.name + SCALE_SUFFIX], dtype) if raw.name + SCALE_SUFFIX in matrices else raw
        for raw in tensors
        if raw.name not in matrices
    ]


def _matrix(raw: RawTensor, scale: RawTensor, dtype: Dtype.ValueType) -> RawTensor:
    if scale.shape != raw.shape[:1] or scale.dtype != trajectory.DTYPE_FLOAT32 or raw.dtype not in _VALUES:
        raise WeightStreamError(f"{scale.name} of shape {scale.shape} is no scale of {raw.name} of shape {raw.shape}")
    codes = np.frombuffer(raw.data, np.uint8).reshape(raw.shape[0], -1)
    values = _VALUES[raw.dtype][codes] * np.frombuffer(scale.data, "<f4")[:, None]
    octets = values if dtype == trajectory.DTYPE_FLOAT32 else to_bfloat16(values)
    return RawTensor(raw.name, dtype, raw.shape, octets.reshape(-1).view(np.uint8).data)


def to_bfloat16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """The bits of the nearest bfloat16, ties to even; for finite values."""
    bits = values.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")


def _float8_values(num_mantissa_bits: int, bias: int) -> NDArray[np.float32]:
    """The value of each of the 256 codes, by the format's definition (OCP 8-bit floating point)."""
    codes = np.arange(256)
    sign = np.where(codes & 0x80, -1.0, 1.0)
    exponent = (codes & 0x7F) >> num_mantissa_bits
    fraction = (codes & ((1 << num_mantissa_bits) - 1)) / (1 << num_mantissa_bits)
    magnitude = np.where(exponent > 0, (1 + fraction) * 2.0 ** (exponent - bias), fraction * 2.0 ** (1 - bias))
    return (sign * magnitude).astype(np.float32)


_VALUES: dict[int, NDArray[np.float32]] = {
    trajectory.DTYPE_INT8: np.arange(256).astype(np.uint8).view(np.int8).astype(np.float32),
    trajectory.DTYPE_FLOAT8_E4M3: _float8_values(3, 7),
}
