"""A version's tensors in a file: the worker writes it, and an engine's process maps it."""

from __future__ import annotations

import mmap
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from perilune.dtypes import ITEM_TYPES
from perilune.weights import RawTensor
from services.rollout.engines.process import wire

ALIGNMENT_BYTES = 64  # of a tensor in the file

Layout = Mapping[str, tuple[int, ...]]  # each tensor's shape


def layout(tensors: Sequence[RawTensor]) -> Layout:
    """Each tensor's shape, by its name."""
    return {tensor.name: tensor.shape for tensor in tensors}


def difference(own: Layout, given: Layout) -> str:
    """In words, how a version differs from the one that the engine was made with; "" if it does not."""
    for name, shape in given.items():
        if own.get(name) != shape:
            wanted = own.get(name, "none of that name")
            return f"the tensor {name} of shape {shape} is not this model's, which has {wanted}"
    missing = [name for name in own if name not in given]
    return f"the version lacks {len(missing)} of the model's tensors, the first is {missing[0]}" if missing else ""


def write_tensors(path: Path, tensors: Sequence[RawTensor]) -> list[wire.TensorPlace]:
    """Writes the tensors one after the other; returns where each lies."""
    places = []
    with path.open("wb") as file:
        for tensor in tensors:
            file.seek(-file.tell() % ALIGNMENT_BYTES, os.SEEK_CUR)
            dtype = ITEM_TYPES[tensor.dtype].torch
            places.append(wire.TensorPlace(tensor.name, dtype, list(tensor.shape), file.tell()))
            file.write(tensor.data)
    return places


def read_tensors(load: wire.Load) -> dict[str, Tensor]:
    """Views of the mapped file; nothing is copied here."""
    with Path(load.path).open("rb") as file:
        octets = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))
    tensors = {}
    for place in load.places:
        dtype = getattr(torch, place.dtype)
        count = int(np.prod(place.shape, dtype=np.int64))
        empty = torch.empty(0, dtype=dtype, device="cpu")
        flat = torch.frombuffer(octets, dtype=dtype, count=count, offset=place.offset) if count else empty
        tensors[place.name] = flat.view(place.shape)
    return tensors
