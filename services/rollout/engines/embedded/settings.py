"""Says how each running sample is to be sampled, in the arrays that the sampler takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from services.rollout.engines import sampling
from services.rollout.engines.embedded.decoder import Row
from services.rollout.engines.sampling import Kind


@dataclass(frozen=True)
class RowSettings:
    """The settings of some rows, where the model is; their kind is known on the host, so that no one asks the card."""

    rows: Sequence[Row]
    streams: NDArray[np.uint64]
    temperature_B: Tensor
    top_p_B: Tensor
    top_k_B: Tensor
    kind: Kind

    @staticmethod
    def of(rows: Sequence[Row], device: torch.device) -> RowSettings:
        """Collects the settings of rows."""
        wanted = [row.sample.sampling for row in rows]
        return RowSettings(
            list(rows),
            np.array([row.stream for row in rows], dtype=np.uint64),
            torch.tensor([each.temperature for each in wanted], dtype=torch.float32, device=device),
            torch.tensor([each.top_p for each in wanted], dtype=torch.float32, device=device),
            torch.tensor([each.top_k for each in wanted], dtype=torch.int64, device=device),
            kind_of(rows),
        )

    def draw(self, logits_BV: Tensor, uniform_B: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See `sampling.draw`."""
        return sampling.draw(logits_BV, self.temperature_B, self.top_p_B, self.top_k_B, uniform_B, self.kind)


def kind_of(rows: Sequence[Row]) -> Kind:
    """Returns what the sampler has to do for these rows together."""
    wanted = [row.sample.sampling for row in rows]
    truncates = any(each.top_k > 0 or each.top_p < 1 for each in wanted)
    return Kind(not truncates and all(each.temperature == 1 for each in wanted), truncates)
