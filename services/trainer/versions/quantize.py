"""Matrices in one byte an element for the way to the fleet: a scale a row, so that its largest element just fits.

`perilune.weights.quantized` is the way back. The engine then samples from the rounded policy; its log-probabilities
are what tells the trainer how far that is from its own (the metric `engine_gap`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor

from perilune.weights.quantized import SCALE_SUFFIX

Kind = Literal["int8", "fp8"]
_LARGEST = {"int8": 127.0, "fp8": torch.finfo(torch.float8_e4m3fn).max}


@torch.no_grad()
def quantized(name: str, tensor: Tensor, kind: Kind | None) -> Iterator[tuple[str, Tensor]]:
    """The tensors that stand for one: a matrix as bytes and scales, anything else as it is."""
    if kind is None or tensor.ndim != 2 or not tensor.is_floating_point():
        yield name, tensor
        return
    values = tensor.float()
    scale = values.abs().amax(1).clamp_min(torch.finfo(torch.float32).tiny) / _LARGEST[kind]
    scaled = values / scale[:, None]
    yield name, scaled.round().to(torch.int8) if kind == "int8" else scaled.to(torch.float8_e4m3fn)
    yield name + SCALE_SUFFIX, scale
