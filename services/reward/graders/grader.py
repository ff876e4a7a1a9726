"""Grader, the parts of one: options, a quick function, and where that cannot decide, work for a killable process."""

from __future__ import annotations

import difflib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Generic, Self, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from perilune.api.reward.v1.reward_pb2 import GraderInfo, Image, Message, Outcome
from perilune.errors import InvalidInputError
from services.reward.remembered import remembered


@dataclass(frozen=True)
class GradingSample:
    """A response to grade. The conversation and the images are those of the question, where it has any."""

    question: str
    reference: str
    response: str
    conversation: tuple[Message, ...] = ()
    images: tuple[Image, ...] = ()
    outcome: Outcome | None = None  # of the environment that the policy talked to, where it gave one


@dataclass(frozen=True)
class Verdict:
    """A grader's decision: a value, and why. A value of None says that the grader could not decide."""

    value: float | None
    evidence: Mapping[str, str] = field(default_factory=dict)
    version: str = ""  # where it is not the grader's own: that of a plug-in

    @classmethod
    def of(cls, correct: bool | None, **evidence: str) -> Self:
        """1 for a right answer, 0 for a wrong one, no value for None."""
        return cls(None if correct is None else float(correct), evidence)


class GraderOptions(BaseModel):
    """Options arrive as text; a field's type reads them, its description and default document it."""

    model_config = ConfigDict(extra="forbid", frozen=True)


O = TypeVar("O", bound=GraderOptions)  # noqa: E741


@dataclass(frozen=True)
class Grader(Generic[O]):
    """A way to grade: its name, version and options, and the functions that decide."""

    name: str
    version: str  # raised whenever the same input may get another value
    description: str
    options: type[O]
    # Runs in the service itself: no evaluation, time linear in the text. None leaves the verdict to `work`.
    grade: Callable[[GradingSample, O], Verdict | None]
    # Runs in a process that is killed when it takes too long; a function of a module, so that it can be sent there.
    work: Callable[[GradingSample, O], Verdict] | None = None
    # Asks something outside (the sandbox, a judge, a plug-in), without blocking the service, if the others left it
    # undecided. UnavailableError if it is away: the caller may try again. None: the verdict stays as it is.
    ask: Callable[[GradingSample, O], Awaitable[Verdict | None]] | None = None

    def read_options(self, given: Mapping[str, str]) -> O:
        """The options checked. InvalidInputError names the wrong one, and the nearest that exists."""
        return _read_options(self, tuple(sorted(given.items())))

    def looks(self, options: O) -> bool:
        """Tests whether it may look at the question's images, with these options."""
        return bool(getattr(options, "sees", False))

    def info(self) -> GraderInfo:
        """The grader as `ListGraders` shows it."""
        options = {
            name: f"{option.description} (default: {option.default!r})"
            for name, option in self.options.model_fields.items()
        }
        return GraderInfo(name=self.name, version=self.version, description=self.description, options=options)


@remembered  # a run gives the same few options with each of its trajectories
def _read_options(grader: Grader[O], given: tuple[tuple[str, str], ...]) -> O:
    for key, _ in given:
        if key not in grader.options.model_fields:
            known = list(grader.options.model_fields)
            raise InvalidInputError(f"grader {grader.name!r} has no option {key!r}; {nearest(key, known)}")
    try:
        return grader.options.model_validate(dict(given))
    except ValidationError as error:
        details = error.errors()[0]
        where = details["loc"][0] if details["loc"] else "options"
        raise InvalidInputError(
            f"grader {grader.name!r}, option {where!r}: {details['msg'].lower()} (got {details['input']!r})"
        ) from error


def nearest(word: str, known: list[str]) -> str:
    """The hint about a misspelt name."""
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else f"known are {', '.join(sorted(known)) or 'none'}"
