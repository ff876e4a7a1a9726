"""Importance weights for tokens that another distribution wrote than the one that is trained: an older version
(k1.5 §2.6.2's reused segments, asynchronous runs), or a quantised copy of the same one.

Notation, token by token: μ drew it, as its engine said then; π_i is the policy that the iteration opened with; π_θ is
the one being trained. Each correction is a weight on the gradient of log π_θ(token):

    truncated   min(π_θ/μ, C)                 bounded above (IMPALA's ρ̄, arXiv:1802.01561)
    masked      π_θ/μ within [1/C, C], else 0  what is far off says nothing
    sequence    min(Π π_θ/μ, C)                one weight for a whole sample; unbiased but for C, and noisier
    decoupled   min(π_i/μ, C)                 π_θ/π_i is left to the pull back to π_i (AReaL, arXiv:2505.24298)
    adaptive    (π_i/μ)^a                     a in [0, 1] as large as leaves `effective_share` of the tokens effective
    ais         1 - α + α·min(π_i/μ, C)       α in [0, 1] by how a batch looks (adaptive importance sampling, below)
    m2po        π_θ/μ, or 0 for outliers      M2PO (arXiv:2510.01161), below

`ais` is the interpolation of arXiv:2605.13907 between the uncorrected gradient and the corrected one. Its α grows with
the mean |log π_i/μ| and shrinks as weights lose effective samples or spread; how the authors combine the three we could
not find. `mixing_share` is a monotone combination of our own that stays in [0, 1].

`m2po` leaves out the tokens with the largest |log π_i/μ| until the mean square of the rest is at most `second_moment`.
The paper has π_θ for π_i, which is the same at an iteration's first step.

`adaptive` is this project's earlier reading of the same idea: the weights are tempered by what they cost in variance,
measured by Kish's effective sample size (Σw)²/Σw².
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

Correction = Literal["truncated", "masked", "sequence", "decoupled", "adaptive", "ais", "m2po"]
LOOK_AT_STEP: frozenset[Correction] = frozenset({"adaptive", "ais", "m2po"})
"""Corrections that depend on all tokens of a step."""

NUM_HALVINGS = 12  # of the interval that holds the exponent
DIVERGENCE_NATS = 0.01  # mean |log π_i/μ| at which `ais` corrects by 1 - 1/e of what effective size and spread allow


class Spread(NamedTuple):
    """Describes how the importance weights of a step's tokens lie: what `ais` decides by, and what runs report."""

    effective_share: float  # (Σw)²/(N·Σw²)
    divergence: float  # mean |log w|, nats
    variation: float  # standard deviation of w over its mean


def importance_weights(
    kind: Correction,
    policy_S: Tensor,
    reference_S: Tensor,
    behaviour_S: Tensor,
    sequence_S: Tensor,
    limit: float,
    exponent: float = 1.0,
    share: float = 1.0,
    furthest: float = math.inf,
) -> Tensor:
    """A weight for each token in the loss, with no gradient.

    Args:
        policy_S, reference_S, behaviour_S: log-probabilities by π_θ, π_i and μ, in nats.
        sequence_S: which sequence each token belongs to.
        limit: C.
        exponent: of `adaptive`, as `adaptive_exponent` finds it.
        share: α of `ais`, as `mixing_share` finds it.
        furthest: the largest |log π_i/μ| that `m2po` keeps, as `furthest_kept` finds it, in nats.
    """
    policy_S, opened_S = policy_S.detach(), reference_S - behaviour_S
    if kind == "sequence":
        return sequence_ratios(policy_S - behaviour_S, sequence_S).clamp_max(limit)[sequence_S]
    if kind == "adaptive":
        return (exponent * opened_S).exp()
    if kind == "ais":
        return 1 - share + share * opened_S.exp().clamp_max(limit)
    ratio_S = (opened_S if kind == "decoupled" else policy_S - behaviour_S).exp()
    if kind == "m2po":
        return ratio_S.where(opened_S.abs() <= furthest, 0.0)
    if kind == "masked":
        return ratio_S.where((ratio_S <= limit) & (ratio_S >= 1 / limit), 0.0)
    return ratio_S.clamp_max(limit)


def sequence_ratios(log_ratio_S: Tensor, sequence_S: Tensor) -> Tensor:
    """The ratio of whole sequences: the product over their tokens, by sequence."""
    num_sequences = int(sequence_S.max()) + 1 if len(sequence_S) else 0
    return log_ratio_S.new_zeros(num_sequences).index_add(0, sequence_S, log_ratio_S).exp()


def effective_share(weights_S: Tensor) -> float:
    """Kish's effective sample size as a share of the tokens: 1 for equal weights, towards 0 where few decide."""
    weights_S = weights_S.double()
    return float(weights_S.sum() ** 2 / (len(weights_S) * (weights_S**2).sum()))


def adaptive_exponent(log_ratio_S: Tensor, wanted_share: float) -> float:
    """The largest exponent, to 1/4096, at which the weights' effective share is at least what is wanted.

    The share falls as the exponent grows, from 1 at 0.
    """
    if not len(log_ratio_S) or effective_share(log_ratio_S.exp()) >= wanted_share:
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(NUM_HALVINGS):
        middle = (low + high) / 2
        enough = effective_share((middle * log_ratio_S).exp()) >= wanted_share
        low, high = (middle, high) if enough else (low, middle)
    return low


def spread_of(log_ratio_S: Tensor) -> Spread:
    """The spread of the weights exp(log_ratio), of at least one token."""
    weights_S = log_ratio_S.double().exp()
    variation = weights_S.std(correction=0) / weights_S.mean()
    return Spread(effective_share(weights_S), log_ratio_S.abs().mean().item(), variation.item())


def mixing_share(spread: Spread) -> float:
    """α of `ais`: effective share × (1 - exp(-divergence/d)) / (1 + variation), with d = `DIVERGENCE_NATS`.

    Where engine and trainer agree there is nothing to correct, and α is 0; where few tokens would decide, correcting
    costs more than it mends, and α falls again. Each factor is in [0, 1] and monotone in its diagnostic.
    """
    return spread.effective_share * -math.expm1(-spread.divergence / DIVERGENCE_NATS) / (1 + spread.variation)


def furthest_kept(log_ratio_S: Tensor, second_moment: float) -> float:
    """The largest |log ratio| that is kept, in nats: those above it are left out, so that the mean square of what is
    kept is at most `second_moment`, nats². At least one token, the nearest, is kept.
    """
    if not len(log_ratio_S):
        return math.inf
    distances_S = log_ratio_S.double().abs().sort().values
    means_S = (distances_S**2).cumsum(0) / distances_S.new_ones(len(distances_S)).cumsum(0)
    num_kept = max(1, int((means_S <= second_moment).sum()))  # the means of ever further tokens only grow
    return distances_S[num_kept - 1].item()
