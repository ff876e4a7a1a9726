"""On-policy distillation: the reverse KL divergence from a teacher, on what the policy itself wrote.

With the gap d_t = log π_T(y_t) - log π_θ(y_t) of a token, whose mean over tokens of π_θ is -KL(π_θ ‖ π_T)(s_t):

    loss of a response = - mean over its tokens of A_t·log π_θ(y_t)
    A_t = stop[d_t + KL_t + w·(r - mean r)]

KL_t, the divergence at the token's place, is a control variate (vOPD, arXiv:2605.07865): it does not depend on the
token, so it leaves the gradient's mean as it is. It was computed where the sample was written, of the policy that wrote
it, over `teacher.top_k` ids with both distributions renormalised on them; over the whole vocabulary, if that has no
more. Where the policy has taken steps since, it is that of the version before, and still no function of the token.
`reward_weight` w mixes the reward in, centred in its group. Left out: importance corrections.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import NonNegativeFloat

from perilune.objectives.advantages import centred
from perilune.objectives.objective import Loss, LossRow, Need, Objective

if TYPE_CHECKING:
    from torch import Tensor


class Distill(Objective):
    """Reverse KL to the teacher of `[teacher]`, token by token, with or without vOPD's control variate."""

    type: Literal["distill"]
    control_variate: bool = True
    reward_weight: NonNegativeFloat = 0.0  # of the centred reward, which each token of a response gets

    @property
    def needs(self) -> frozenset[Need]:
        """The teacher's log-probabilities, and with the control variate its divergence too."""
        return frozenset({"teacher", "teacher_kl"}) if self.control_variate else frozenset({"teacher"})

    def prefers(self, rewards: Sequence[float]) -> bool:
        """True: a teacher has something to say of every response."""
        return True

    def advantages(self, rewards: Sequence[float], num_tokens: Sequence[int]) -> list[float]:
        """w·(r - mean r) of its response; the teacher's part comes with each token."""
        return [self.reward_weight * advantage for advantage in centred(rewards)]

    def loss(self, row: LossRow) -> Loss:
        """-A_t·log π_θ, averaged over each sequence's tokens."""
        assert row.teacher_S is not None  # as `needs` says
        gap_S = row.teacher_S - row.policy_S.detach()
        advantage_S = gap_S + row.advantage_S
        if self.control_variate:
            assert row.teacher_kl_S is not None
            advantage_S = advantage_S + row.teacher_kl_S
        total = -(row.weight_n * row.means(advantage_S * row.policy_S)).sum()
        return Loss(total, {"gap": gap_S, "advantage": advantage_S})

    def metrics(self, observed: Mapping[str, Tensor]) -> dict[str, float]:
        """`teacher_kl`: an estimate of KL(π_θ ‖ π_T), nats a token. `advantage_std`: of the tokens' advantages."""
        if not len(gap_S := observed.get("gap", ())):
            return {}
        return {
            "teacher_kl": -gap_S.mean().item(),  # type: ignore[union-attr]
            "advantage_std": observed["advantage"].std(correction=0).item(),
        }
