"""Holds what objectives share that may weigh their tokens by importance: the keys, the needs, and the weights of a
row."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Self

from pydantic import Field, PositiveFloat, PrivateAttr

from perilune.objectives.correction import (
    LOOK_AT_STEP,
    Correction,
    adaptive_exponent,
    effective_share,
    furthest_kept,
    importance_weights,
    mixing_share,
    spread_of,
)
from perilune.objectives.objective import ITERATION, LossRow, Need, Objective

if TYPE_CHECKING:
    from torch import Tensor


class Corrected(Objective):
    """Base of the objectives that take importance corrections (`perilune.objectives.correction`)."""

    # Importance weights for tokens that another distribution wrote than the one that is trained; none, if not given.
    correction: Correction | None = None
    correction_limit: Annotated[float, Field(gt=1)] = 2.0  # on an importance weight, or on its inverse
    effective_share: Annotated[float, Field(gt=0, lt=1)] = 0.9  # adaptive: of a batch's tokens, after weighting
    second_moment: PositiveFloat = 0.04  # m2po: of the log-ratios of the tokens that are kept, nats²
    # For the step at hand, of the corrections that look at it:
    _exponent: float = PrivateAttr(1.0)  # adaptive
    _share: float = PrivateAttr(1.0)  # ais
    _furthest: float = PrivateAttr(float("inf"))  # m2po, nats

    @property
    @abstractmethod
    def own_needs(self) -> frozenset[Need]:
        """Returns what the objective needs without a correction."""

    @property
    def needs(self) -> frozenset[Need]:
        """Its own needs, and with a correction the iteration's policy and what tokens were drawn with."""
        return self.own_needs | ITERATION | {"behaviour"} if self.correction else self.own_needs

    @property
    def looks_at_step(self) -> bool:
        """True for the corrections that depend on all of a step's tokens."""
        return self.correction in LOOK_AT_STEP

    def for_step(self, reference_S: Tensor, behaviour_S: Tensor) -> Self:
        """The objective with what its correction takes from all of the step's tokens."""
        step, log_ratio_S = self.model_copy(), reference_S - behaviour_S
        if self.correction == "adaptive":
            step._exponent = adaptive_exponent(log_ratio_S, self.effective_share)
        elif self.correction == "ais" and len(log_ratio_S):
            step._share = mixing_share(spread_of(log_ratio_S))
        elif self.correction == "m2po":
            step._furthest = furthest_kept(log_ratio_S, self.second_moment)
        return step

    def weights(self, row: LossRow) -> Tensor | None:
        """The importance weight of each token, shape (S,), with no gradient; None without a correction."""
        if self.correction is None:
            return None
        assert row.reference_S is not None  # as `needs` says
        assert row.behaviour_S is not None
        return importance_weights(
            self.correction,
            row.policy_S,
            row.reference_S,
            row.behaviour_S,
            row.sequence_S,
            self.correction_limit,
            self._exponent,
            self._share,
            self._furthest,
        )

    def metrics(self, observed: Mapping[str, Tensor]) -> dict[str, float]:
        """The importance weights' mean, the largest, and the share of the tokens that they leave effective."""
        if (importance_S := observed.get("importance")) is None:
            return {}
        return {
            "importance_mean": importance_S.mean().item(),
            "importance_max": importance_S.max().item(),
            "effective_share": effective_share(importance_S),
        }
