"""Tensors on the wire and back, and the table of dtypes that both ways read."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from perilune.api.trajectory.v1 import trajectory_pb2 as trajectory
from perilune.dtypes import ITEM_TYPES
from perilune.models.tensors import TORCH_DTYPE, WIRE_DTYPE, compute_dtype, dtype_name, raw_tensor, torch_tensor


def test_every_dtype_of_the_wire_has_a_row_that_numpy_and_torch_agree_with() -> None:
    assert set(ITEM_TYPES) == set(trajectory.Dtype.values()) - {trajectory.DTYPE_UNSPECIFIED}
    for code, item in ITEM_TYPES.items():
        assert TORCH_DTYPE[code].itemsize == item.num_bytes
        assert dtype_name(TORCH_DTYPE[code]) == item.torch
        assert item.numpy is None or np.dtype(item.numpy).itemsize == item.num_bytes


@pytest.mark.parametrize("dtype", WIRE_DTYPE, ids=dtype_name)
@pytest.mark.parametrize("shape", [(2, 3), (), (0, 3)], ids=str)
def test_a_tensor_comes_back_to_the_bit(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    tensor = torch.arange(torch.Size(shape).numel()).reshape(shape).to(dtype)
    back = torch_tensor(raw_tensor("x", tensor))
    assert (back.dtype, back.shape) == (tensor.dtype, tensor.shape)
    assert torch.equal(back.float(), tensor.float())


def test_a_model_computes_in_the_dtype_of_its_first_floating_point_tensor() -> None:
    count, half, double = (raw_tensor("x", torch.zeros(2, dtype=getattr(torch, name)))
                           for name in ("int64", "bfloat16", "float64"))  # fmt: skip
    assert compute_dtype([count, half, double]) == torch.bfloat16
    assert compute_dtype([count]) == torch.float32
