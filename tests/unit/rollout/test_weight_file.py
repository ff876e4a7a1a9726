"""A version's way into an engine's process: the file, and the frame that says where each tensor lies in it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from perilune.models.tensors import WIRE_DTYPE
from perilune.weights import RawTensor
from services.rollout.engines.process import weight_file, wire
from services.rollout.engines.process.weight_file import ALIGNMENT_BYTES

TENSORS = {
    "odd": torch.arange(5, dtype=torch.uint8),  # what follows would not be aligned
    "half": torch.tensor([[1.5, -2.25], [0.0, 3.0]], dtype=torch.bfloat16),
    "empty": torch.empty((0, 3), dtype=torch.float32),
    "scalar": torch.tensor(7.5, dtype=torch.float64),
    "flags": torch.tensor([True, False, True]),
}


def raw(name: str, tensor: Tensor) -> RawTensor:
    octets = bytearray(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return RawTensor(name, WIRE_DTYPE[tensor.dtype], tuple(tensor.shape), memoryview(octets))


def test_tensors_come_out_as_they_went_in(tmp_path: Path) -> None:
    places = weight_file.write_tensors(tmp_path / "weights-3", [raw(*item) for item in TENSORS.items()])
    order = wire.decode(wire.encode(wire.Load(3, str(tmp_path / "weights-3"), places)))
    assert isinstance(order, wire.Load)
    found = weight_file.read_tensors(order)
    assert list(found) == list(TENSORS)
    for name, tensor in TENSORS.items():
        assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape)
        assert torch.equal(found[name], tensor)
    assert all(place.offset % ALIGNMENT_BYTES == 0 for place in places)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"a": (2, 3), "b": (4,)}, ""),
        ({"a": (2, 3)}, "the version lacks 1 of the model's tensors, the first is b"),
        ({"a": (3, 2), "b": (4,)}, r"the tensor a of shape (3, 2) is not this model's, which has (2, 3)"),
        ({"c": (1,)}, "the tensor c of shape (1,) is not this model's, which has none of that name"),
    ],
)
def test_a_version_of_another_model_is_described(given: dict[str, tuple[int, ...]], expected: str) -> None:
    assert weight_file.difference({"a": (2, 3), "b": (4,)}, given) == expected
