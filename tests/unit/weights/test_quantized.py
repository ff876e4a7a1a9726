"""Quantised on the way: what comes back is within half a step of what went, and the digest is of what is served."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from perilune.api.trajectory.v1.trajectory_pb2 import DTYPE_BFLOAT16, DTYPE_FLOAT8_E4M3, DTYPE_FLOAT32, DTYPE_INT8
from perilune.errors import WeightStreamError
from perilune.weights import RawTensor
from perilune.weights.quantized import dequantized, to_bfloat16
from services.trainer.versions.quantize import quantized
from services.trainer.versions.snapshot import snapshot
from tests.unit.trainer.models import tiny_policy


def test_int8_by_hand() -> None:
    matrix = torch.tensor([[1.27, -0.635, 0.005], [0.0, 0.0, 0.0]])
    (_, codes), (name, scale) = quantized("w", matrix, "int8")
    assert codes.tolist() == [[127, -64, 0], [0, 0, 0]]  # -63.5 goes to the even neighbour
    assert name == "w.scale"
    assert scale[0].item() == pytest.approx(0.01)


def test_vectors_and_whole_numbers_are_left_alone() -> None:
    vector, counts = torch.ones(3), torch.ones(2, 2, dtype=torch.int64)
    assert [pair[0] for pair in quantized("v", vector, "int8")] == ["v"]
    assert [pair[0] for pair in quantized("c", counts, "fp8")] == ["c"]
    assert [pair[0] for pair in quantized("m", torch.ones(2, 2), None)] == ["m"]


@pytest.mark.parametrize(("kind", "dtype", "steps"), [("int8", DTYPE_INT8, 127), ("fp8", DTYPE_FLOAT8_E4M3, 16)])
def test_a_policy_comes_back_within_half_a_step(kind: str, dtype: int, steps: int) -> None:
    policy = tiny_policy()
    sent = snapshot(policy, 0, torch.float32, quantize=kind).state
    plain = snapshot(policy, 0, torch.float32).state
    assert sent.version.digest != plain.version.digest
    assert sent.manifest.num_bytes < plain.manifest.num_bytes / 3
    state, back = policy.model.state_dict(), {raw.name: raw for raw in dequantized(sent.tensors)}
    assert back.keys() == {raw.name for raw in plain.tensors}
    for raw in back.values():
        assert raw.dtype == DTYPE_FLOAT32
        value = torch.frombuffer(raw.data, dtype=torch.float32).reshape(raw.shape)
        if value.ndim < 2:
            assert torch.equal(value, state[raw.name])
        else:
            largest = state[raw.name].abs().amax(1, keepdim=True)
            # int8: half a step of the row's largest over 127; e4m3: half of 2^-3 of the element, or of the smallest.
            bound = largest / (2 * steps) if kind == "int8" else state[raw.name].abs() / steps + largest / 448 / 512
            assert ((value - state[raw.name]).abs() <= bound * 1.001).all(), raw.name


def test_every_float8_code_has_torchs_value() -> None:
    codes = torch.arange(256, dtype=torch.uint8)
    expected = codes.view(torch.float8_e4m3fn).float()
    matrix = RawTensor("w", DTYPE_FLOAT8_E4M3, (1, 256), memoryview(codes.numpy()))
    scale = RawTensor("w.scale", DTYPE_FLOAT32, (1,), memoryview(np.ones(1, "<f4").tobytes()))
    norm = RawTensor("norm", DTYPE_FLOAT32, (1,), memoryview(bytes(4)))
    found = torch.frombuffer(dequantized([matrix, scale, norm])[0].data, dtype=torch.float32)
    finite = ~expected.isnan()  # the two codes of NaN are never written
    assert torch.equal(found[finite], expected[finite])


def test_rounding_to_bfloat16_is_torchs() -> None:
    values = np.random.default_rng(0).standard_normal(10_000).astype(np.float32) * 10.0 ** np.arange(-20, 20).repeat(
        250
    )
    values = values.astype(np.float32)
    expected = torch.from_numpy(values).bfloat16().view(torch.uint16).numpy()
    assert (to_bfloat16(values) == expected).all()


def test_tensors_that_are_not_quantised_are_handed_on() -> None:
    tensors = [RawTensor("w", DTYPE_BFLOAT16, (1, 1), memoryview(b"ab"))]
    assert dequantized(tensors) is tensors


def test_a_scale_of_another_shape_is_refused() -> None:
    matrix = RawTensor("w", DTYPE_INT8, (2, 2), memoryview(b"abcd"))
    scale = RawTensor("w.scale", DTYPE_FLOAT32, (1,), memoryview(bytes(4)))
    with pytest.raises(WeightStreamError, match=r"w.scale of shape \(1,\) is no scale of w"):
        dequantized([matrix, scale])
