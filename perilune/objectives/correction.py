"""Importance weights for tokens that another distribution wrote than the one that is trained: an older version
(k1.5 §2.6.2's reused segments, asynchronous runs), or a quantised copy of the same one.

Notation, token by token: μ drew it, as its engine said then; π_i is the policy that the iteration opened with; π_θ is
the one being trained. Each correction is a weight on the gradient of log π_θ(token):

    truncated   min(π_θ/μ, C)                 bounded above (IMPALA's ρ̄, arXiv:1802.01561)
    masked      π_θ/μ within [1/C, C], else 0  what is far off says nothing
    sequence    min(Π π_θ/μ, C)                one weight for a whole sample; unbiased but for C, and noisier
    decoupled   min(π_i/μ, C)                 π_θ/π_i is left to the pull back to π_i (AReaL, arXiv:2505.24298)
    adaptive    (π_i/μ)^α                     α in [0, 1] as large as leaves `effective_share` of the tokens effective

The last one is this project's reading of adaptive importance sampling for quantised rollouts: the weights are tempered
by what they cost in variance, measured by Kish's effective sample size (Σw)²/Σw².
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

Correction = Literal["truncated", "masked", "sequence", "decoupled", "adaptive"]
NUM_HALVINGS = 12  # of the interval that holds the exponent


def importance_weights(
    kind: Correction,
    policy_S: Tensor,
    reference_S: Tensor,
    behaviour_S: Tensor,
    sequence_S: Tensor,
    limit: float,
    exponent: float = 1.0,
) -> Tensor:
    """A weight for each token in the loss, with no gradient.

    Args:
        policy_S, reference_S, behaviour_S: log-probabilities by π_θ, π_i and μ, in nats.
        sequence_S: which sequence each token belongs to.
        limit: C.
        exponent: α of `adaptive`, as `adaptive_exponent` finds it.
    """
    policy_S = policy_S.detach()
    if kind == "sequence":
        return sequence_ratios(policy_S - behaviour_S, sequence_S).clamp_max(limit)[sequence_S]
    if kind == "adaptive":
        return (exponent * (reference_S - behaviour_S)).exp()
    ratio_S = ((reference_S if kind == "decoupled" else policy_S) - behaviour_S).exp()
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
