"""Says how a reward model is trained; no torch, so that a wrong command line is refused at once."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Plan:
    """Describes how long, and in what steps."""

    num_passes: float = 3.0  # over the examples
    batch_size: int = 32
    learning_rate: float = 1e-5  # a tenth of the steps up, a half cosine down to 0
    microbatch_tokens: int = 4096
    seed: int = 0

    def num_steps(self, num_examples: int) -> int:
        """Optimiser steps for so many examples."""
        return max(1, round(self.num_passes * num_examples / self.batch_size))
