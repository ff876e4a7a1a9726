"""From logits to tokens and their log-probabilities. Pure functions; randomness comes in as uniform numbers.

Shapes: B rows, V vocabulary. `multinomial` over a large vocabulary is slow on a CPU (it draws V numbers a row); one
uniform a row and an inverse of the cumulative distribution, first over blocks and then inside one, is several times
faster and exact.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

BLOCK = 256  # tokens in a block of the cumulative distribution


def uniforms(seeds: NDArray[np.uint64], positions: NDArray[np.int64]) -> NDArray[np.float64]:
    """One number in [0, 1) a row: a hash of the row's stream and the token's position in it, so that a sample's
    tokens depend neither on its neighbours nor on when it ran. SplitMix64 (Steele et al. 2014) as a counter.
    """
    with np.errstate(over="ignore"):
        bits = _mix(seeds + (positions.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15))
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def uniforms_of(streams_B: Tensor, positions_B: Tensor) -> Tensor:
    """The numbers of `uniforms`, float64, computed where the tensors are; the streams' bits as int64.

    Torch's int64 wraps as uint64 does; only shifts have to be freed from the sign.
    """
    bits_B = streams_B + (positions_B + 1) * _signed(0x9E3779B97F4A7C15)
    bits_B = (bits_B ^ _shifted(bits_B, 30)) * _signed(0xBF58476D1CE4E5B9)
    bits_B = (bits_B ^ _shifted(bits_B, 27)) * _signed(0x94D049BB133111EB)
    bits_B = bits_B ^ _shifted(bits_B, 31)
    return _shifted(bits_B, 11).double() * 2.0**-53


def stream_of(seed: int, index: int) -> np.uint64:
    """The random stream of sample `index` under `seed`."""
    with np.errstate(over="ignore"):
        words = np.array([seed & 0xFFFFFFFFFFFFFFFF, index], dtype=np.uint64)
        return np.uint64(
            _mix(_mix(words[0] + np.uint64(0x9E3779B97F4A7C15)) + words[1] * np.uint64(0xD1342543DE82EF95))
        )


def _mix(bits: NDArray[np.uint64] | np.uint64) -> NDArray[np.uint64]:
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(bits ^ (bits >> np.uint64(31)))


def _signed(bits: int) -> int:
    return bits - (1 << 64) if bits >> 63 else bits


def _shifted(bits_B: Tensor, count: int) -> Tensor:
    """Shifts right, with zeros from the left."""
    return (bits_B >> count) & ((1 << (64 - count)) - 1)


@dataclass(frozen=True)
class Kind:
    """Describes what some rows need together. A caller that knows it spares a card's answer, for which the host
    would wait."""

    plain: bool  # temperature 1 and no truncation, for all
    truncates: bool  # top-k or top-p, for some

    @staticmethod
    def of(temperature_B: Tensor, top_p_B: Tensor, top_k_B: Tensor) -> Kind:
        """Looks at the rows' settings."""
        truncates = bool((top_k_B > 0).any() or (top_p_B < 1).any())
        return Kind(not truncates and bool((temperature_B == 1).all()), truncates)


def draw(
    logits_BV: Tensor,
    temperature_B: Tensor,
    top_p_B: Tensor,
    top_k_B: Tensor,
    uniform_B: Tensor,
    kind: Kind | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Draws one token a row.

    Args:
        logits_BV: float32.
        temperature_B: 0 is greedy: the first of the most likely tokens, with log-probability 0.
        top_p_B, top_k_B: 1 and 0 mean no truncation. Top-k comes first, the nucleus is that of what is left.
        uniform_B: float64 in [0, 1).
        kind: of these rows; looked for in their settings if not given.

    Returns:
        Tokens (int64); their log-probabilities under the distribution that was sampled from; and under
        softmax(logits). Both float32, in nats.
    """
    kind = kind or Kind.of(temperature_B, top_p_B, top_k_B)
    peak_B = logits_BV.amax(-1, keepdim=True)
    greedy_B = temperature_B == 0
    weights_BV = (logits_BV - peak_B).exp_() if kind.plain else _weights(logits_BV, peak_B, temperature_B)
    if kind.truncates:
        weights_BV = _truncate(weights_BV, top_p_B, top_k_B)
    tokens_B, mass_B = _invert(weights_BV, uniform_B)
    if kind.plain:
        full_B = (logits_BV.gather(-1, tokens_B[:, None]) - peak_B).squeeze(-1) - mass_B.log()
        return tokens_B, full_B, full_B
    tokens_B = torch.where(greedy_B, logits_BV.argmax(-1), tokens_B)
    full_B = logits_BV.gather(-1, tokens_B[:, None]).squeeze(-1) - logits_BV.logsumexp(-1)
    drawn_B = weights_BV.gather(-1, tokens_B[:, None]).squeeze(-1).log() - mass_B.log()
    return tokens_B, torch.where(greedy_B, 0.0, drawn_B), full_B


def _weights(logits_BV: Tensor, peak_B: Tensor, temperature_B: Tensor) -> Tensor:
    """exp((logits - peak) / temperature): the peak's weight is 1."""
    divisor_B = torch.where(temperature_B == 0, 1.0, temperature_B)[:, None]
    return ((logits_BV - peak_B) / divisor_B).exp_()


def _truncate(weights_BV: Tensor, top_p_B: Tensor, top_k_B: Tensor) -> Tensor:
    """Keeps the top_k heaviest and, of those, the fewest heaviest whose share reaches top_p; zeroes the others."""
    sorted_BV, order_BV = weights_BV.sort(dim=-1, descending=True, stable=True)
    ranks_V = torch.arange(sorted_BV.shape[-1], device=weights_BV.device)
    sorted_BV = sorted_BV.masked_fill((top_k_B[:, None] > 0) & (ranks_V >= top_k_B[:, None]), 0.0)
    before_BV = sorted_BV.cumsum(-1, dtype=torch.float64) - sorted_BV
    share_B = top_p_B[:, None].double() * sorted_BV.sum(-1, keepdim=True, dtype=torch.float64)
    cut_BV = (top_p_B[:, None] < 1) & (before_BV >= share_B) & (ranks_V > 0)
    return torch.zeros_like(weights_BV).scatter_(-1, order_BV, sorted_BV.masked_fill(cut_BV, 0.0))


def _invert(weights_BV: Tensor, uniform_B: Tensor) -> tuple[Tensor, Tensor]:
    """The token at which each row's cumulative weight passes uniform × total, and the total (float32)."""
    rows, size = weights_BV.shape
    if size <= 4 * BLOCK:  # small enough for one level
        token_B, _, total_B = _locate(weights_BV.double(), uniform_B)
        return token_B, total_B.float()
    if size % BLOCK:  # a pad of nothing would still copy
        weights_BV = torch.nn.functional.pad(weights_BV, (0, -size % BLOCK))
    blocks_BNK = weights_BV.view(rows, -1, BLOCK)
    block_B, within_B, total_B = _locate(blocks_BNK.sum(-1).double(), uniform_B)
    index_B, _, _ = _locate(blocks_BNK[torch.arange(rows, device=block_B.device), block_B].double(), within_B)
    return block_B * BLOCK + index_B, total_B.float()


def _locate(weights_BN: Tensor, uniform_B: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Returns where the cumulative weight (float64) first passes uniform × total, how far into that entry, and the
    total.

    The entry found has positive weight, whatever the rounding: the cumulative sum rises there.
    """
    cumulative_BN = weights_BN.cumsum(-1)
    total_B = cumulative_BN[:, -1]
    target_B = torch.minimum(uniform_B * total_B, torch.nextafter(total_B, torch.zeros_like(total_B)))
    index_B = torch.searchsorted(cumulative_BN, target_B[:, None], right=True)
    upper_B = cumulative_BN.gather(-1, index_B).squeeze(-1)
    width_B = weights_BN.gather(-1, index_B).squeeze(-1)
    within_B = ((target_B - (upper_B - width_B)) / width_B).clamp_(0.0, 1.0)
    return index_B.squeeze(-1), within_B, total_B
