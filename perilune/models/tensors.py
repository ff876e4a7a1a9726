"""Tensors of torch as the wire has them, and back; both ways share memory, nothing is copied."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from perilune.dtypes import ITEM_TYPES
from perilune.weights import RawTensor

TORCH_DTYPE: dict[int, torch.dtype] = {code: getattr(torch, item.torch) for code, item in ITEM_TYPES.items()}
WIRE_DTYPE = {dtype: code for code, dtype in TORCH_DTYPE.items()}


def raw_tensor(name: str, tensor: Tensor) -> RawTensor:
    """A tensor as the wire has it. On the CPU it shares the tensor's memory, which must not change any more."""
    octets = tensor.contiguous().reshape(-1).view(torch.uint8)
    return RawTensor(name, WIRE_DTYPE[tensor.dtype], tuple(tensor.shape), memoryview(octets.cpu().numpy()))  # type: ignore[arg-type]  # an array is a buffer


def torch_tensor(raw: RawTensor) -> Tensor:
    """A tensor of the wire as torch's, a view of its bytes."""
    if not raw.data.nbytes:
        return torch.empty(raw.shape, dtype=TORCH_DTYPE[raw.dtype], device="cpu")
    return torch.frombuffer(raw.data, dtype=TORCH_DTYPE[raw.dtype]).view(raw.shape)


def compute_dtype(tensors: Iterable[RawTensor]) -> torch.dtype:
    """The dtype that a model of these tensors computes in: that of the first floating-point one, else float32."""
    dtypes = (TORCH_DTYPE[tensor.dtype] for tensor in tensors)
    return next((dtype for dtype in dtypes if dtype.is_floating_point), torch.float32)


def dtype_name(dtype: torch.dtype) -> str:
    """The name of a dtype, as in torch.NAME."""
    return str(dtype).removeprefix("torch.")
