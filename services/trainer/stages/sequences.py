"""The sequences of many examples, in a file: a million rows take no more memory than one."""

from __future__ import annotations

import os
import tempfile
from array import array
from collections.abc import Iterable

import numpy as np

from perilune.errors import StateError
from perilune.models.masking import Tokens


class Sequences:
    """Examples by number, each with its sequences; in a file without a name, which ends with the process."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as this does
        self._ends = array("q", [0])  # of each sequence, in tokens
        self._firsts = array("q", [0])  # each example's first sequence, and the end of the last
        self.num_learnt = 0

    def __len__(self) -> int:
        return len(self._firsts) - 1

    @property
    def num_tokens(self) -> int:
        """All tokens of all sequences."""
        return self._ends[-1]

    def add(self, sequences: Iterable[Tokens]) -> None:
        """Adds an example. StateError: the disk is full."""
        for each in sequences:
            # A learnt token's bits are turned over: one number has both.
            signed = np.where(each.learnt, ~each.tokens, each.tokens).astype("<i4")
            try:
                self._file.write(signed.tobytes())
            except OSError as error:
                raise StateError(f"cannot keep tokens in {tempfile.gettempdir()} (TMPDIR): {error}") from error
            self._ends.append(self._ends[-1] + len(signed))
            self.num_learnt += int(each.learnt.sum())
        self._firsts.append(len(self._ends) - 1)

    def __getitem__(self, number: int) -> list[Tokens]:
        """The sequences of an example."""
        self._file.flush()
        return [self._sequence(place) for place in range(self._firsts[number], self._firsts[number + 1])]

    def _sequence(self, place: int) -> Tokens:
        begin, end = self._ends[place], self._ends[place + 1]
        content = os.pread(self._file.fileno(), 4 * (end - begin), 4 * begin)
        signed = np.frombuffer(content, "<i4").astype(np.int64)
        return Tokens(np.where(signed < 0, ~signed, signed), signed < 0)
