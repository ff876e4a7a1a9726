"""From rows to sequences: tokenized, cut to length, what cannot be learnt from left out by name or refused."""

from __future__ import annotations

import itertools
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from perilune.data.examples import Example, refuse_long
from perilune.errors import InvalidInputError
from perilune.models.masking import Tokens
from perilune.recipe import RowsStage
from services.trainer.learner import InterruptedTraining
from services.trainer.policy.model import Policy
from services.trainer.stages.sequences import Sequences
from services.trainer.stages.supervised import context_of, longest, tokens_of

logger = logging.getLogger(__name__)

AT_ONCE = 512  # rows that are tokenized together
BROKEN, TOO_LONG, NOTHING_LEARNT = "broken", "too long", "nothing learnt"
NUM_SAID = 5  # rows left out that the log names

OnRow = Callable[[str, str, str], None]  # called with where a row lies, the kind of reason, and the reason
Record = tuple[Example, ...]  # of one row: an example, or the answers that are compared
Records = Iterator[tuple[str, Record | InvalidInputError]]  # with the place of each; of a broken row, why it is


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


class Reader:
    """Reads rows for a stage as its table says."""

    def __init__(self, table: RowsStage, policy: Policy, left_out: LeftOut) -> None:
        self._table, self._policy, self._left_out = table, policy, left_out

    def read(self, records: Records, paths: Sequence[str], should_stop: Callable[[], bool]) -> Sequences:
        """The examples of all rows, those of one behind each other.

        Raises:
            InterruptedTraining: should_stop said so.
            InvalidInputError: there are none, or some that the table does not drop.
        """
        found, lengths = Sequences(), list[int]()
        while part := list(itertools.islice(records, AT_ONCE)):
            if should_stop():
                raise InterruptedTraining
            for where, examples in self._tokenized(part):
                lengths.append(max(map(longest, examples)))
                self._add(found, where, examples)
        if self._table.too_long == "refuse":
            refuse_long(lengths, self._max_length, ", ".join(paths))
        if not len(found):
            left = ", ".join(f"{count} {kind}" for kind, count in self._left_out.counts.items())
            raise InvalidInputError(f"there are no examples in {', '.join(paths)}{f' ({left})' if left else ''}")
        return found

    def _tokenized(
        self, part: Sequence[tuple[str, Record | InvalidInputError]]
    ) -> Iterator[tuple[str, list[list[Tokens]]]]:
        """The rows of a part with their examples' sequences; one by one where some cannot be rendered."""
        good = [(where, record) for where, record in part if not isinstance(record, InvalidInputError)]
        for where, error in part:
            if isinstance(error, InvalidInputError):
                self._drop(where, error)
        try:
            sequences = iter(tokens_of(self._policy, [example for _, record in good for example in record]))
        except InvalidInputError as error:
            if len(good) == 1:
                self._drop(good[0][0], InvalidInputError(f"{good[0][0]}: {error}"))
            else:
                for each in good:
                    yield from self._tokenized([each])
            return
        for where, record in good:
            yield where, [next(sequences) for _ in record]

    def _drop(self, where: str, error: InvalidInputError) -> None:
        if self._table.broken == "refuse":
            raise error
        self._left_out.add(where, BROKEN, str(error))

    def _add(self, found: Sequences, where: str, examples: list[list[Tokens]]) -> None:
        """Adds a row's examples, cut or left out where one is too long."""
        limit, length = self._max_length, max(map(longest, examples))
        if limit is not None and length > limit and self._table.too_long != "refuse":
            if self._table.too_long == "drop":
                self._left_out.add(where, TOO_LONG, f"{where} has {length} tokens, and at most {limit} are learnt from")
                return
            self._left_out.num_truncated += 1
            examples = [[Tokens(each.tokens[:limit], each.learnt[:limit]) for each in parts] for parts in examples]
        examples = [[each for each in parts if each.learnt.any()] for parts in examples]
        if not all(examples):
            self._left_out.add(where, NOTHING_LEARNT, f"{where}: no token of it is learnt")
            return
        for parts in examples:
            found.add(parts)

    @property
    def _max_length(self) -> int | None:
        given = [limit for limit in (self._table.max_length, context_of(self._policy)) if limit is not None]
        return min(given, default=None)
