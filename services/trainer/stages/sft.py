"""Supervised fine-tuning on examples of one's own: conversations, prompts with their responses, or plain texts.

rows → examples → sequences with what is learnt of them → steps, and in between what held-out examples say.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from perilune.data.examples import Shuffled, examples_of
from perilune.errors import InvalidInputError
from perilune.models.masking import Tokens
from perilune.recipe import SftStage
from services.trainer.policy.model import Policy
from services.trainer.rows import row_tokens
from services.trainer.stages.heldout import generate, heldout_loss
from services.trainer.stages.reading import LeftOut, OnRow, Reader
from services.trainer.stages.sequences import Sequences
from services.trainer.stages.stage import Measured, Setting
from services.trainer.stages.supervised import Supervised

logger = logging.getLogger(__name__)


class Sft(Supervised):
    """The examples of files, each once an epoch, in an order of the seed's."""

    table: SftStage

    def __init__(self, table: SftStage, policy: Policy, recipe: Setting, on_row: OnRow | None = None) -> None:
        """`on_row`: called for each row that is left out."""
        super().__init__(table, policy, recipe)
        self._left_out = LeftOut(on_row=on_row)

    def check(self, should_stop: Callable[[], bool]) -> None:
        """Reads and tokenizes the files; says how much of them is seen."""
        self._examples = self._read(self.table.path, should_stop)
        self._learnt, self._measured = self._split(should_stop)
        self._shuffled = Shuffled(self._learnt, self.recipe.seed)
        names, num_seen = ", ".join(self.table.path), self.num_steps * self.table.batch_size
        logger.info("%s: %d examples are used, %d are learnt from in all", names, len(self._learnt), num_seen)

    @property
    def num_steps(self) -> int:
        """`num_steps`, or as many as `epochs` take."""
        return self.table.num_steps_of(len(self._learnt))

    def sequences(self, step: int) -> list[Tokens]:
        """The sequences of a step's examples."""
        first = step * self.table.batch_size
        numbers = [self._shuffled[first + place] for place in range(self.table.num_of_step(step, len(self._learnt)))]
        return [sequence for number in numbers for sequence in self._examples[number]]

    def measure(self, step: int) -> Measured:
        """The held-out loss, and answers to held-out prompts, where they are due."""
        every = self.table.evaluate_every
        is_due = step + 1 == self.num_steps or (every is not None and (step + 1) % every == 0)
        if not (is_due and self._measured):
            return Measured()
        trainer = self.recipe.trainer
        loss = heldout_loss(self.policy, self._measured, row_tokens(trainer, self.policy.model), trainer.precision)
        asked = self._measured[: self.table.num_generated]
        return Measured({"heldout_loss": loss}, generate(self.policy, asked, self.table.max_generated_tokens))

    def facts(self) -> dict[str, Any]:
        """Returns what there is to say of the data."""
        return {
            "num_examples": len(self._learnt),
            "num_heldout": len(self._measured),
            "num_tokens": self._examples.num_tokens,
            "num_learnt_tokens": self._examples.num_learnt,
            "num_left_out": dict(self._left_out.counts),
            "num_truncated": self._left_out.num_truncated,
        }

    def _read(self, paths: Sequence[str], should_stop: Callable[[], bool]) -> Sequences:
        rows = examples_of(self.table, paths)
        records = ((where, each if isinstance(each, InvalidInputError) else (each,)) for where, each in rows)
        return Reader(self.table, self.policy, self._left_out).read(records, paths, should_stop)

    def _split(self, should_stop: Callable[[], bool]) -> tuple[list[int], list[list[Tokens]]]:
        """The numbers of the examples that are learnt, and the sequences of those that are measured on."""
        numbers = range(len(self._examples))
        if self.table.heldout_path:
            heldout = self._read(self.table.heldout_path, should_stop)
            return list(numbers), [heldout[number] for number in range(len(heldout))]
        if self.table.num_heldout >= len(numbers):
            raise InvalidInputError(
                f"num_heldout = {self.table.num_heldout} leaves nothing of {len(numbers)} examples to learn from"
            )
        chosen = set(Random(f"heldout/{self.recipe.seed}").sample(numbers, self.table.num_heldout))
        return [each for each in numbers if each not in chosen], [self._examples[each] for each in sorted(chosen)]
