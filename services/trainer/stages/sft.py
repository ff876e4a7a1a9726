"""Supervised fine-tuning on examples of one's own: conversations, prompts with their responses, or plain texts.

rows → examples → sequences with what is learnt of them → steps, and in between what held-out examples say.
"""

from __future__ import annotations

import itertools
import logging
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from perilune.data.examples import Example, Shuffled, examples_of, refuse_long
from perilune.errors import InvalidInputError
from perilune.models.masking import Tokens
from perilune.recipe import SftStage
from services.trainer.learner import InterruptedTraining
from services.trainer.policy.model import Policy
from services.trainer.rows import row_tokens
from services.trainer.stages.heldout import generate, heldout_loss
from services.trainer.stages.sequences import Sequences
from services.trainer.stages.stage import Measured, Setting
from services.trainer.stages.supervised import Supervised, context_of, longest, tokens_of

logger = logging.getLogger(__name__)

AT_ONCE = 512  # examples that are tokenized together
BROKEN, TOO_LONG, NOTHING_LEARNT = "broken", "too long", "nothing learnt"
NUM_SAID = 5  # rows left out that the log names


OnRow = Callable[[str, str, str], None]  # called with where a row lies, the kind of reason, and the reason


@dataclass
class LeftOut:
    """Rows that are not learnt from, and those that are cut."""

    counts: Counter[str] = field(default_factory=Counter)  # by kind
    num_truncated: int = 0
    on_row: OnRow | None = None

    def add(self, where: str, kind: str, reason: str) -> None:
        """Counts a row, and names the first ones."""
        self.counts[kind] += 1
        if self.counts[kind] <= NUM_SAID:
            logger.warning("left out (%s): %s", kind, reason)
        if self.on_row:
            self.on_row(where, kind, reason)


class Sft(Supervised):
    """The examples of files, each once an epoch, in an order of the seed's."""

    table: SftStage

    def __init__(self, table: SftStage, policy: Policy, recipe: Setting, on_row: OnRow | None = None) -> None:
        """`on_row`: called for each row that is left out."""
        super().__init__(table, policy, recipe)
        self.left_out = LeftOut(on_row=on_row)

    def check(self, should_stop: Callable[[], bool]) -> None:
        """Reads and tokenizes the files; says how much of them is seen."""
        names = ", ".join(self.table.path)
        self.examples = self._read(self.table.path, should_stop)
        self._learnt, self._measured = self._split(should_stop)
        self._shuffled = Shuffled(self._learnt, self.recipe.seed)
        num_seen = self.num_steps * self.table.batch_size
        logger.info("%s: %d examples are used, %d are learnt from in all", names, len(self._learnt), num_seen)

    @property
    def num_steps(self) -> int:
        """`num_steps`, or as many as `epochs` take."""
        if self.table.epochs is None:
            return self.table.num_steps
        return max(1, math.ceil(self.table.epochs * len(self._learnt) / self.table.batch_size))

    def sequences(self, step: int) -> list[Tokens]:
        """The sequences of a step's examples; of the last step of an epoch run, those that are left."""
        first, size = step * self.table.batch_size, self.table.batch_size
        if self.table.epochs is not None:
            size = min(size, max(1, round(self.table.epochs * len(self._learnt)) - first))
        numbers = [self._shuffled[first + place] for place in range(size)]
        return [sequence for number in numbers for sequence in self.examples[number]]

    def measure(self, step: int) -> Measured:
        """The held-out loss, and answers to held-out prompts, where they are due."""
        is_due = step + 1 == self.num_steps or (
            self.table.evaluate_every and (step + 1) % self.table.evaluate_every == 0
        )
        if not (is_due and self._measured):
            return Measured()
        trainer = self.recipe.trainer
        loss = heldout_loss(self.policy, self._measured, row_tokens(trainer, self.policy.model), trainer.precision)
        asked = self._measured[: self.table.num_generated]
        answers = generate(self.policy, asked, self.table.max_generated_tokens)
        return Measured({"heldout_loss": loss}, answers)

    def facts(self) -> dict[str, Any]:
        """What there is to say of the data."""
        return {
            "num_examples": len(self._learnt),
            "num_heldout": len(self._measured),
            "num_tokens": self.examples.num_tokens,
            "num_learnt_tokens": self.examples.num_learnt,
            "num_left_out": dict(self.left_out.counts),
            "num_truncated": self.left_out.num_truncated,
        }

    # --- Reading --------------------------------------------------------------------------------------------------

    def _read(self, paths: Sequence[str], should_stop: Callable[[], bool]) -> Sequences:
        """The examples of files. InvalidInputError: there are none, or some that the table does not drop."""
        found, lengths = Sequences(), list[int]()
        for part in _parts(examples_of(self.table, paths), AT_ONCE):
            if should_stop():
                raise InterruptedTraining
            for where, sequences in self._tokenized(part):
                lengths.append(longest(sequences))
                self._add(found, where, sequences)
        if self.table.too_long == "refuse":
            refuse_long(lengths, self._max_length, ", ".join(paths))
        if not len(found):
            left = ", ".join(f"{count} {kind}" for kind, count in self.left_out.counts.items())
            raise InvalidInputError(f"there are no examples in {', '.join(paths)}{f' ({left})' if left else ''}")
        return found

    def _tokenized(self, part: Sequence[tuple[str, Example | InvalidInputError]]) -> Iterator[tuple[str, list[Tokens]]]:
        """The examples of a part with their sequences; one by one where some cannot be rendered."""
        good = [(where, example) for where, example in part if not isinstance(example, InvalidInputError)]
        for where, error in part:
            if isinstance(error, InvalidInputError):
                self._drop(where, error)
        try:
            yield from zip(
                [where for where, _ in good], tokens_of(self.policy, [each for _, each in good]), strict=True
            )
        except InvalidInputError as error:
            if len(good) == 1:
                self._drop(good[0][0], InvalidInputError(f"{good[0][0]}: {error}"))
            else:
                for each in good:
                    yield from self._tokenized([each])

    def _drop(self, where: str, error: InvalidInputError) -> None:
        if self.table.broken == "refuse":
            raise error
        self.left_out.add(where, BROKEN, str(error))

    def _add(self, found: Sequences, where: str, sequences: list[Tokens]) -> None:
        """Adds an example, cut or left out where it is too long."""
        limit = self._max_length
        if limit is not None and longest(sequences) > limit and self.table.too_long != "refuse":
            if self.table.too_long == "drop":
                reason = f"{where} has {longest(sequences)} tokens, and at most {limit} are learnt from"
                self.left_out.add(where, TOO_LONG, reason)
                return
            self.left_out.num_truncated += 1
            sequences = [Tokens(each.tokens[:limit], each.learnt[:limit]) for each in sequences]
        sequences = [each for each in sequences if each.learnt.any()]
        if sequences:
            found.add(sequences)
        else:
            self.left_out.add(where, NOTHING_LEARNT, f"{where}: no token of it is learnt")

    @property
    def _max_length(self) -> int | None:
        given = [limit for limit in (self.table.max_length, context_of(self.policy)) if limit is not None]
        return min(given, default=None)

    def _split(self, should_stop: Callable[[], bool]) -> tuple[list[int], list[list[Tokens]]]:
        """The numbers of the examples that are learnt, and the sequences of those that are measured on."""
        numbers = range(len(self.examples))
        if self.table.heldout_path:
            heldout = self._read(self.table.heldout_path, should_stop)
            return list(numbers), [heldout[number] for number in range(len(heldout))]
        if self.table.num_heldout >= len(numbers):
            raise InvalidInputError(
                f"num_heldout = {self.table.num_heldout} leaves nothing of {len(numbers)} examples to learn from"
            )
        chosen = set(Random(f"heldout/{self.recipe.seed}").sample(numbers, self.table.num_heldout))
        return [each for each in numbers if each not in chosen], [self.examples[each] for each in sorted(chosen)]


def _parts(items: Iterator[tuple[str, Example | InvalidInputError]], size: int) -> Iterator[list]:
    return iter(lambda: list(itertools.islice(items, size)), [])
