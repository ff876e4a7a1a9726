"""A stage of curation: its keys in the plan, and what it decides about the rows that the stages before have left."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar

from perilune.curation.workspace import Decision, Survivors
from perilune.recipe import Table


@dataclass(frozen=True)
class Tools:
    """What a stage may use beside the rows."""

    notify: Callable[[str], None]  # a line for the person who waits


class Stage(Table):
    """A stage. Its fields are its keys in the plan; a subclass in a file of its own and a row in STAGES make one."""

    title: ClassVar[str]  # for the report
    enabled: bool = True

    def off(self) -> str:
        """Why the stage does nothing with these keys; empty if it does."""
        return "" if self.enabled else "switched off"

    def decide(self, rows: Survivors, tools: Tools) -> Iterator[Decision]:
        """The decisions about rows, in any order; rows without one stay as they are."""
        raise NotImplementedError
