"""Direct preference optimisation (DPO, arXiv:2305.18290 eq. 7) on pairs of answers to one prompt.

With ρ = log π_θ(y|x) - log π_ref(y|x), summed over an answer's tokens, and π_ref the policy as the stage began, a
pair's loss is -log σ(β·(ρ_chosen - ρ_rejected)); a step's is the mean over its pairs.

Shapes: N sequences of a row, P pairs.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from perilune.data.examples import Shuffled, pair_of_row, records_of
from perilune.models.masking import Tokens
from perilune.recipe import DpoStage
from services.trainer.policy.logprobs import sequence_logprobs
from services.trainer.policy.packing import pack_row, plan_rows
from services.trainer.rows import row_tokens
from services.trainer.stages.reading import LeftOut, Reader
from services.trainer.stages.stage import Stage
from services.trainer.stages.supervised import row_logprobs

logger = logging.getLogger(__name__)


class Dpo(Stage):
    """The pairs of files, each once an epoch, in an order of the seed's."""

    table: DpoStage

    def check(self, should_stop: Callable[[], bool]) -> None:
        """Reads and tokenizes the files."""
        left_out, paths = LeftOut(), self.table.path
        rows = records_of(self.table, paths, lambda row, where: pair_of_row(row, self.table, where))
        self._answers = Reader(self.table, self.policy, left_out).read(rows, paths, should_stop)
        self._shuffled = Shuffled(range(self._num_pairs), self.recipe.seed)
        logger.info(
            "%s: %d pairs are used, rows left out: %s", ", ".join(paths), self._num_pairs, dict(left_out.counts)
        )

    @property
    def num_steps(self) -> int:
        """`num_steps`, or as many as `epochs` take."""
        return self.table.num_steps_of(self._num_pairs)

    @torch.no_grad()
    def reference(self) -> Tensor:
        """log π_ref of the chosen and the rejected answer of each pair, shape (pairs, 2)."""
        found = torch.empty(self._num_pairs, 2, device="cpu")
        for pairs in self._rows(range(self._num_pairs)):
            found[pairs] = self._logprobs(pairs).cpu()
        return found

    def accumulate(self, step: int, reference: Tensor) -> dict[str, float]:
        """Adds a step's gradient; tells the loss, the mean margin β·(ρ_chosen - ρ_rejected), and how many are right."""
        first, size = step * self.table.batch_size, self.table.num_of_step(step, self._num_pairs)
        batch = [self._shuffled[first + place] for place in range(size)]
        total, margins = 0.0, list[float]()
        for pairs in self._rows(batch):
            gains_P2 = self._logprobs(pairs) - reference[pairs].to(self.policy.model.device)
            margin_P = self.table.beta * (gains_P2[:, 0] - gains_P2[:, 1])
            loss = -F.logsigmoid(margin_P).sum() / size
            loss.backward()
            total += loss.item()
            margins += margin_P.tolist()
        return {
            "loss": total,
            "num_tokens": float(sum(map(self._length, batch))),
            "margin": sum(margins) / size,
            "accuracy": sum(margin > 0 for margin in margins) / size,
        }

    def _logprobs(self, pairs: Sequence[int]) -> Tensor:
        """log π of both answers of each pair, in one row, shape (P, 2)."""
        parts = [(2 * place + side, each) for place, pair in enumerate(pairs) for side, each in self._sequences(pair)]
        parts.sort(key=lambda part: -len(part[1].tokens))  # similar lengths together
        sequences = [each for _, each in parts]
        row = pack_row(range(len(parts)), [each.tokens for each in sequences], [each.learnt for each in sequences])
        row = row.to(self.policy.model.device)
        logprobs_N = sequence_logprobs(row_logprobs(self.policy, row, self.recipe.trainer.precision), row)
        owner_N = torch.tensor([owner for owner, _ in parts], device=logprobs_N.device)
        return logprobs_N.new_zeros(2 * len(pairs)).index_add(0, owner_N, logprobs_N).view(-1, 2)

    def _rows(self, pairs: Sequence[int]) -> list[list[int]]:
        """Pairs that share a row, both answers of each in it."""
        plan = plan_rows([self._length(pair) for pair in pairs], row_tokens(self.recipe.trainer, self.policy.model))
        return [[pairs[place] for place in places] for places in plan]

    def _sequences(self, pair: int) -> list[tuple[int, Tokens]]:
        """A pair's sequences, each with its side: 0 of the chosen answer, 1 of the rejected one."""
        return [(side, each) for side in (0, 1) for each in self._answers[2 * pair + side]]

    def _length(self, pair: int) -> int:
        return sum(len(each.tokens) for _, each in self._sequences(pair))

    @property
    def _num_pairs(self) -> int:
        return len(self._answers) // 2
