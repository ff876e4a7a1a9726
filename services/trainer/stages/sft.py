"""Supervised fine-tuning on examples of one's own: conversations, or questions with a response."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cached_property

from perilune.data.examples import Example, Shuffled, read_examples, refuse_long
from perilune.recipe import SftStage
from services.trainer.learner import InterruptedTraining
from services.trainer.stages.supervised import Supervised, context_of, longest, tokens_of

logger = logging.getLogger(__name__)

CHECKED_AT_ONCE = 1_000  # examples


class Sft(Supervised):
    """The examples of files, each once an epoch, in an order of the seed's."""

    table: SftStage

    def example(self, number: int) -> Example:
        """The example with this number, in shuffled order."""
        return self._shuffled[number]

    def check(self, should_stop: Callable[[], bool]) -> None:
        """Says how much of the files is seen, and refuses examples that are too long."""
        names, num_seen = ", ".join(self.table.path), self.table.num_steps * self.table.batch_size
        logger.info("%s: %d examples are used, %d are learnt from in all", names, len(self._examples), num_seen)
        lengths: list[int] = []
        for first in range(0, len(self._examples), CHECKED_AT_ONCE):
            if should_stop():
                raise InterruptedTraining
            lengths += map(longest, tokens_of(self.policy, self._examples[first : first + CHECKED_AT_ONCE]))
        refuse_long(lengths, context_of(self.policy), names)

    @cached_property
    def _examples(self) -> list[Example]:
        return read_examples(self.table)

    @cached_property
    def _shuffled(self) -> Shuffled:
        return Shuffled(self._examples, self.recipe.seed)
