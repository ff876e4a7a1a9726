"""Windows without dense masks, and packed attention by every kernel, against plain arithmetic, forward and backward."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from perilune.models.attention import Layout, causal_attention, dense, packed, packed_causal_attention
from perilune.models.attention.packed import PADDED, Flash, Kernel, Kind, choose_kernel

CPU, CARD = torch.device("cpu"), torch.device("cuda", 0)
LENGTHS = (40, 33, 12, 1)


def plain(query: Tensor, key: Tensor, value: Tensor, lengths, scaling=None, window=None, sinks_H=None) -> Tensor:
    """Attention within each sequence by its definition; (T, H, D)."""
    parts, begin = [], 0
    ratio = query.shape[1] // key.shape[1]
    for length in lengths:
        q, k, v = (tensor[begin : begin + length].transpose(0, 1) for tensor in (query, key, value))
        k, v = k.repeat_interleave(ratio, 0), v.repeat_interleave(ratio, 0)
        distance = torch.arange(length)[:, None] - torch.arange(length)
        hidden = (distance < 0) | (distance >= (window or length))
        scores = (q @ k.mT * (scaling or 1 / math.sqrt(q.shape[-1]))).masked_fill(hidden, -torch.inf)
        if sinks_H is not None:
            scores = torch.cat([scores, sinks_H[:, None, None].expand(-1, length, 1)], -1)
        parts.append((scores.softmax(-1)[..., :length] @ v).transpose(0, 1))
        begin += length
    return torch.cat(parts)


def inputs(lengths=LENGTHS, heads: int = 4, kv_heads: int = 2, size: int = 8, value_size: int = 8) -> list[Tensor]:
    random = torch.Generator().manual_seed(1)
    shapes = ((heads, size), (kv_heads, size), (kv_heads, value_size))
    return [torch.randn(sum(lengths), *shape, generator=random).requires_grad_() for shape in shapes]


def same(found: Tensor, expected: Tensor, tensors: list[Tensor]) -> None:
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-5)
    direction = torch.randn(expected.shape, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(
        *(torch.autograd.grad((values * direction).sum(), tensors, retain_graph=True) for values in (found, expected)),
        atol=5e-5,
        rtol=1e-4,
    )


@pytest.mark.parametrize("window", [None, 1, 7, 16, 100])
@pytest.mark.parametrize("has_sinks", [False, True])
@pytest.mark.parametrize("scaling", [None, 0.5])
def test_packed_attention_is_attention_in_each_sequence(monkeypatch, window, has_sinks, scaling) -> None:
    monkeypatch.setattr(dense, "MIN_CHUNK", 9)  # so that sequences have several
    tensors, sinks_H = inputs(), torch.tensor([0.3, -1.0, 2.0, 0.0]) if has_sinks else None
    found = packed_causal_attention(*tensors, Layout(LENGTHS), scaling, window, sinks_H)
    same(found, plain(*tensors, LENGTHS, scaling, window, sinks_H), tensors)


def test_lengths_in_any_order_and_values_of_another_size() -> None:
    lengths, tensors = (3, 40, 1, 25), inputs((3, 40, 1, 25), value_size=12)
    same(packed_causal_attention(*tensors, Layout(lengths)), plain(*tensors, lengths), tensors)


def test_no_mask_of_a_window_is_larger_than_a_chunk_and_its_reach(monkeypatch) -> None:
    sizes: list[int] = []
    made = dense._band
    monkeypatch.setattr(dense, "_band", lambda *shape: sizes.append(shape[0] * shape[1]) or made(*shape))
    query = torch.randn(1, 1, 4000, 8)
    causal_attention(query, query, query, window=300)
    assert max(sizes) <= 256 * (256 + 299)


@pytest.mark.parametrize("window", [None, 7])
@pytest.mark.parametrize("has_sinks", [False, True])
def test_the_last_positions_alone_attend_as_they_do_among_all(monkeypatch, window, has_sinks) -> None:
    monkeypatch.setattr(dense, "MIN_CHUNK", 9)
    sinks_H = torch.tensor([0.3, -1.0, 2.0, 0.0]) if has_sinks else None
    query, key, value = (tensor.transpose(0, 1)[None] for tensor in inputs((40,)))
    whole = causal_attention(query, key, value, None, window, sinks_H)
    last = causal_attention(query[:, :, -21:], key, value, None, window, sinks_H)
    torch.testing.assert_close(last, whole[:, :, -21:], atol=1e-5, rtol=1e-5)


def documented(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, scale, window_size, enable_gqa) -> Tensor:
    """What torch's documentation says that `varlen_attn` computes."""
    assert cu_seq_q.dtype == torch.int32
    assert enable_gqa == (query.shape[1] != key.shape[1])
    lengths, (left, right) = cu_seq_q.diff().tolist(), window_size
    assert (max(lengths), right) == (max_q, 0)
    return plain(query, key, value, lengths, scale, None if left < 0 else left + 1)


def older(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, is_causal, scale) -> Tensor:
    assert is_causal
    return plain(query, key, value, cu_seq_q.diff().tolist(), scale)


@pytest.mark.parametrize("kv_heads", [2, 4])
@pytest.mark.parametrize("window", [None, 7])
def test_flash_attention_is_asked_for_the_same(monkeypatch, kv_heads: int, window: int | None) -> None:
    flash = Flash(documented, frozenset({"scale", "window_size", "enable_gqa"}))
    monkeypatch.setattr(packed, "find_flash", lambda: flash)
    tensors = inputs(kv_heads=kv_heads)
    found = packed.attend_flash(*tensors, Layout(LENGTHS), 0.5, window, None)
    same(found, plain(*tensors, LENGTHS, 0.5, window), tensors)


def test_flash_attention_of_an_older_torch_has_no_windows(monkeypatch) -> None:
    monkeypatch.setattr(packed, "find_flash", lambda: Flash(older, frozenset({"scale", "is_causal"})))
    tensors = inputs()
    same(packed.attend_flash(*tensors, Layout(LENGTHS), None, None, None), plain(*tensors, LENGTHS), tensors)
    kind = Kind(CARD, torch.bfloat16, 4, 2, 64, 64, has_window=True)
    assert "no windows" in packed.flash_refusal(kind)


def test_torch_has_flash_attention_of_variable_lengths_with_windows() -> None:
    flash = packed.find_flash()
    assert flash is not None
    assert "window_size" in flash.parameters


@pytest.mark.parametrize(
    ("kind", "flash", "efficient"),
    [
        (Kind(CARD, torch.bfloat16, 4, 2, 64, 64, has_window=True), "", ""),
        (Kind(CARD, torch.float32, 4, 2, 64, 64), "half precision, not in float32", ""),
        (Kind(CARD, torch.bfloat16, 4, 2, 64, 64, has_sinks=True), "sinks", "sinks"),
        (Kind(CARD, torch.bfloat16, 4, 4, 192, 128), "differ", ""),
        (Kind(CARD, torch.bfloat16, 4, 4, 36, 36), "multiple of 8", "multiples of 8"),
        (Kind(CPU, torch.bfloat16, 4, 2, 64, 64), "needs a card", "needs a card"),
    ],
)
def test_what_kernels_refuse(kind: Kind, flash: str, efficient: str) -> None:
    for reason, found in ((flash, packed.flash_refusal(kind)), (efficient, packed.efficient_refusal(kind))):
        assert reason in found
        assert bool(reason) == bool(found)


def test_a_kernel_that_fails_or_computes_something_else_is_not_used(caplog) -> None:
    def raising(*arguments: object) -> Tensor:
        raise RuntimeError("no kernel image is available for execution on the device")

    def leaking(query, key, value, layout, scaling, window, sinks_H) -> Tensor:
        return plain(query, key, value, [len(query)], scaling, window)

    def windowless(query, key, value, layout, scaling, window, sinks_H) -> Tensor:
        return plain(query, key, value, layout.lengths, scaling)

    def right(query, key, value, layout, scaling, window, sinks_H) -> Tensor:
        return plain(query, key, value, layout.lengths, scaling, window)

    kernels = [Kernel(each.__name__, lambda kind: "", each) for each in (raising, leaking, windowless, right)]
    kind = Kind(CPU, torch.float32, 4, 2, 8, 8, has_window=True)
    with caplog.at_level("INFO"):
        assert choose_kernel(kind, [*kernels, PADDED]).name == "right"
    assert "no raising: RuntimeError: no kernel image" in caplog.text
    assert "no leaking: its values are off by" in caplog.text
    assert choose_kernel(kind, [kernels[0], PADDED]) is PADDED
    without = Kind(CPU, torch.float32, 4, 2, 8, 8)
    assert choose_kernel(without, [*kernels, PADDED]).name == "windowless"  # it need not have what is not asked
