"""Causal attention within each sequence of a packed row, and the kernels that compute it.

On a card the kernels of variable lengths read the row as it is, by where its sequences begin: no padding, and nothing
that is prepared for each new shape. On a CPU the row is cut into blocks of sequences of similar length, each block is
padded, and PyTorch's causal attention runs on it without a mask: padding sits at the end, where causality hides it.

A kernel is believed after a trial: before its first use for a kind of attention it computes a few tokens, forward and
backward, and is compared with plain arithmetic. One that fails is left out, with the reason in the log, and the next
one takes its place.

Shapes: T tokens of the row, N sequences, H query heads, G key-value heads, D head size.
"""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from perilune.models.attention.dense import causal_attention

logger = logging.getLogger(__name__)

MAX_PADDING = 1.5  # of a block: its longest sequence over its shortest
HALF = (torch.float16, torch.bfloat16)
CAUSAL_FROM_TOP_LEFT = 1  # what torch calls that kind of mask, as a number
TRIAL_LENGTHS, TRIAL_WINDOW = (21, 9, 1), 5
# Of a trial's values and gradients, which are near 1: rounding to bf16 makes 2e-2, TF32 2e-3.
TRIAL_GAP = {torch.float32: 1e-2, torch.float16: 2e-2, torch.bfloat16: 1e-1}


@dataclass(frozen=True)
class Block:
    """Consecutive sequences of similar length, which attention sees as a padded (num_sequences, length) batch."""

    num_sequences: int
    length: int  # of the longest one
    begin: int  # tokens [begin, end) of the row belong to it
    end: int
    slots: Tensor | None  # (end - begin,) where each token lies in the padded batch; None: there is no padding


@dataclass(frozen=True)
class Layout:
    """Describes where the sequences of a row lie: one after the other, with no padding between them."""

    lengths: tuple[int, ...]
    device: torch.device = torch.device("cpu")  # noqa: RUF009 - a value

    def to(self, device: torch.device) -> Layout:
        """The layout for a row on a device."""
        return self if device == self.device else Layout(self.lengths, device)

    @cached_property
    def offsets(self) -> Tensor:
        """Returns where each sequence begins, and where the last one ends, int32, shape (N + 1,)."""
        ends = np.cumsum([0, *self.lengths], dtype=np.int32)
        return torch.from_numpy(ends).to(self.device)

    @cached_property
    def longest(self) -> int:
        """Tokens of the longest sequence."""
        return max(self.lengths)

    @cached_property
    def blocks(self) -> list[Block]:
        """The row, cut where a sequence is too short to be padded to the longest before it. Best by falling length."""
        blocks: list[Block] = []
        first = 0
        for end in range(1, len(self.lengths) + 1):
            if end == len(self.lengths) or self.lengths[first] > MAX_PADDING * self.lengths[end]:
                blocks.append(_block(self.lengths[first:end], blocks[-1].end if blocks else 0, self.device))
                first = end
        return blocks


def _block(lengths: Sequence[int], begin: int, device: torch.device) -> Block:
    longest, num_tokens = max(lengths), sum(lengths)
    padded = len(lengths) * longest != num_tokens
    slots = np.concatenate([row * longest + np.arange(length) for row, length in enumerate(lengths)])
    return Block(
        len(lengths), longest, begin, begin + num_tokens, torch.from_numpy(slots).to(device) if padded else None
    )


@dataclass(frozen=True)
class Kind:
    """A kind of attention: what decides which kernel computes it."""

    device: torch.device
    dtype: torch.dtype
    num_heads: int
    num_kv_heads: int
    head_size: int
    value_size: int
    has_window: bool = False
    has_sinks: bool = False


def packed_causal_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layout: Layout,
    scaling: float | None = None,
    window: int | None = None,
    sinks_H: Tensor | None = None,
) -> Tensor:
    """Causal attention within each sequence of a row, (T, H, D).

    Args:
        query: (T, H, D).
        key: (T, G, D); so many query heads share each as there are more of them.
        value: as key, its D may be another.
        layout: of the row.
        scaling: of the scores; the square root of D divides them if not given.
        window: how many positions back a query reads, itself too; all if not given.
        sinks_H: see `causal_attention`.
    """
    if window is not None and window >= layout.longest:
        window = None
    query, key = query.to(value.dtype), key.to(value.dtype)
    kind = Kind(
        query.device,
        value.dtype,
        query.shape[1],
        key.shape[1],
        query.shape[2],
        value.shape[2],
        window is not None,
        sinks_H is not None,
    )
    return kernel_for(kind).attend(query, key, value, layout, scaling, window, sinks_H)


class Attend(Protocol):
    """A kernel's function; as `packed_causal_attention`."""

    def __call__(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        layout: Layout,
        scaling: float | None,
        window: int | None,
        sinks_H: Tensor | None,
    ) -> Tensor:
        """Attention of a row, (T, H, D)."""


@dataclass(frozen=True)
class Kernel:
    """A way to compute packed attention."""

    name: str
    refusal: Callable[[Kind], str]  # why it cannot compute a kind; empty if it can
    attend: Attend


# --- Variable lengths, on a card ----------------------------------------------------------------------------------


def flash_refusal(kind: Kind) -> str:
    """Why flash attention cannot compute a kind; empty if it can."""
    if kind.device.type != "cuda":
        return "it needs a card"
    if kind.dtype not in HALF:
        return f"it computes in half precision, not in {str(kind.dtype).removeprefix('torch.')}"
    if kind.has_sinks:
        return "it has no attention sinks"
    if kind.head_size != kind.value_size:
        return "keys and values differ in their head size"
    if kind.head_size % 8 or kind.head_size > 256:
        return f"a head size of {kind.head_size} is no multiple of 8 up to 256"
    if (flash := find_flash()) is None:
        return f"torch {torch.__version__} has none; version 2.11 does"
    if kind.has_window and "window_size" not in flash.parameters:
        return f"torch {torch.__version__} has no windows there; version 2.11 does"
    return ""


@dataclass(frozen=True)
class Flash:
    """torch's flash attention of variable lengths; its arguments change from one version to the next."""

    attend: Callable[..., Any]
    parameters: frozenset[str]


@functools.cache
def find_flash() -> Flash | None:
    """torch's own; None if this version has none. Imported when it is wanted: that takes more than a second."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    return Flash(varlen_attn, frozenset(inspect.signature(varlen_attn).parameters))


def attend_flash(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layout: Layout,
    scaling: float | None,
    window: int | None,
    sinks_H: Tensor | None,
) -> Tensor:
    """Flash attention of variable lengths."""
    flash, options = find_flash(), dict[str, object]()
    assert flash is not None  # its refusal says so
    if "window_size" in flash.parameters:
        options["window_size"] = (-1 if window is None else window - 1, 0)  # positions before and after
    else:
        options["is_causal"] = True
    if "enable_gqa" in flash.parameters:  # before there was such an argument, grouped heads were taken as they are
        options["enable_gqa"] = query.shape[1] != key.shape[1]
    places = layout.offsets, layout.offsets, layout.longest, layout.longest
    attended: Tensor = flash.attend(query, key, value, *places, scale=scaling, **options)
    return attended


def efficient_refusal(kind: Kind) -> str:
    """Why memory-efficient attention cannot compute a kind; empty if it can."""
    if kind.device.type != "cuda":
        return "it needs a card"
    if kind.has_sinks:
        return "it has no attention sinks"
    alignment = 8 if kind.dtype in HALF else 4
    if kind.head_size % alignment or kind.value_size % alignment:
        return f"head sizes of {kind.head_size} and {kind.value_size} are no multiples of {alignment}"
    return ""


def attend_efficient(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layout: Layout,
    scaling: float | None,
    window: int | None,
    sinks_H: Tensor | None,
) -> Tensor:
    """Memory-efficient attention of variable lengths, in float32 too; it has no grouped heads, so they are repeated."""
    if query.shape[1] != key.shape[1]:
        key, value = (each.repeat_interleave(query.shape[1] // each.shape[1], 1) for each in (key, value))
    attended: Tensor = torch.ops.aten._efficient_attention_forward(
        query[None],
        key[None],
        value[None],
        None,
        layout.offsets,
        layout.offsets,
        layout.longest,
        layout.longest,
        0.0,  # dropout
        CAUSAL_FROM_TOP_LEFT,
        torch.is_grad_enabled() and query.requires_grad,  # whether the backward pass needs the sums
        scale=scaling,
        window_size=window,
    )[0]
    return attended[0]


# --- Padded blocks, anywhere --------------------------------------------------------------------------------------


def attend_padded(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layout: Layout,
    scaling: float | None,
    window: int | None,
    sinks_H: Tensor | None,
) -> Tensor:
    """The row's blocks one after the other, each as a padded batch."""
    outputs = []
    for block in layout.blocks:
        q, k, v = (_pad(tensor[block.begin : block.end], block) for tensor in (query, key, value))
        outputs.append(_unpad(causal_attention(q, k, v, scaling, window, sinks_H), block))
    return torch.cat(outputs) if len(outputs) > 1 else outputs[0]


def _pad(tokens_THD: Tensor, block: Block) -> Tensor:
    """(tokens, H, D) to (num_sequences, H, length, D)."""
    if block.slots is not None:
        num_slots = block.num_sequences * block.length
        tokens_THD = tokens_THD.new_zeros(num_slots, *tokens_THD.shape[1:]).index_copy(0, block.slots, tokens_THD)
    return tokens_THD.unflatten(0, (block.num_sequences, block.length)).transpose(1, 2)


def _unpad(padded_NHLD: Tensor, block: Block) -> Tensor:
    tokens = padded_NHLD.transpose(1, 2).flatten(0, 1)
    return tokens if block.slots is None else tokens.index_select(0, block.slots)


PADDED = Kernel("padded blocks", lambda kind: "", attend_padded)
# The first that can compute a kind, and computes its trial, is used.
KERNELS = (
    Kernel("flash attention of variable lengths", flash_refusal, attend_flash),
    Kernel("memory-efficient attention of variable lengths", efficient_refusal, attend_efficient),
    PADDED,
)


# --- Which one ----------------------------------------------------------------------------------------------------


@functools.cache
def kernel_for(kind: Kind) -> Kernel:
    """The kernel that computes a kind of attention on its device."""
    if kind.device.type != "cuda":
        return PADDED
    found = choose_kernel(kind, KERNELS)
    logger.info("attention on %s: %s", kind.device, found.name)
    return found


def choose_kernel(kind: Kind, kernels: Sequence[Kernel]) -> Kernel:
    """The first of the kernels that can compute a kind, and does so rightly; the last one is not tried."""
    *others, last = kernels
    for kernel in others:
        if not (reason := kernel.refusal(kind) or _try(kernel, kind)):
            return kernel
        logger.info("attention on %s: no %s: %s", kind.device, kernel.name, reason)
    return last


def _try(kernel: Kernel, kind: Kind) -> str:
    """Why a kernel is not to be used; empty if it computes what plain arithmetic does."""
    window, expected = TRIAL_WINDOW if kind.has_window else None, _trial_inputs(kind)
    inputs = [tensor.detach().to(kind.device, kind.dtype).requires_grad_() for tensor in expected]
    try:
        found = _values(kernel.attend, inputs, Layout(TRIAL_LENGTHS, kind.device), window)
    # A kernel that this card or this version of torch does not have, or that takes other arguments: there is no common
    # class. The next kernel takes its place.
    except (RuntimeError, ValueError, TypeError, AttributeError) as error:
        return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else 'no reason'}"
    wanted = _values(attend_padded, expected, Layout(TRIAL_LENGTHS), window)
    gap = max((one.cpu().float() - other).abs().max().item() for one, other in zip(found, wanted, strict=True))
    return "" if gap <= TRIAL_GAP[kind.dtype] else f"its values are off by {gap:.1g}"


def _trial_inputs(kind: Kind) -> list[Tensor]:
    """Query, key and value of the trial, float32, on the CPU, rounded as the kind computes."""
    random = torch.Generator("cpu").manual_seed(0)
    shapes = (
        (kind.num_heads, kind.head_size),
        (kind.num_kv_heads, kind.head_size),
        (kind.num_kv_heads, kind.value_size),
    )
    drawn = [torch.randn(sum(TRIAL_LENGTHS), *shape, generator=random, device="cpu") for shape in shapes]
    return [tensor.to(kind.dtype).float().requires_grad_() for tensor in drawn]


@torch.enable_grad()
def _values(attend: Attend, inputs: Sequence[Tensor], layout: Layout, window: int | None) -> list[Tensor]:
    """A trial's attention, and the gradient of each input."""
    query, key, value = inputs
    attended = attend(query, key, value, layout, None, window, None)
    return [attended.detach(), *torch.autograd.grad(attended.float().square().sum(), [query, key, value])]
