"""The protocol of an environment: a tool, a simulator, an interpreter, a game that a policy talks to in a response.

The policy writes until its turn is over: it has written one of the environment's stop texts or, where there are none,
ended the turn as its chat template does. Then `step` gets the text of that turn, and the answer is appended to the
response as tokens that stay out of the loss: raw text as it is, or chat messages through the model's template. An
environment is one sample's: it is made, reset, stepped and closed. A sample may be continued on another worker, so an
environment must be able to come to where it was by repeating the turns; what it said then is not said again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from perilune.api.trajectory.v1.trajectory_pb2 import Prompt


@dataclass(frozen=True)
class Outcome:
    """Describes how a response went, for the grader `outcome`. One with an error is a failure, and never a zero."""

    value: float | None = None  # must be finite
    correct: bool | None = None  # whether the goal was reached; None: if value is at least 1
    reason: str = ""  # why, in words
    error: str = ""  # how the environment failed: nothing was found out about the response


@dataclass(frozen=True)
class Observation:
    """An environment's answer to a turn: raw text, or chat messages."""

    text: str = ""
    is_final: bool = False  # the response ends with it
    messages: Sequence[Mapping[str, str]] = ()  # each has a role, which is not the assistant's, and a content
    outcome: Outcome | None = None  # where it has one, the response ends with it


class Environment(Protocol):
    """One sample's counterpart. An error of its machinery is raised, by a name of `perilune.errors`, and retried."""

    @property
    def stop(self) -> tuple[str, ...]:
        """Texts with which the policy hands over the word; none: it does so by ending its turn."""

    async def reset(self, prompt: Prompt, turns: Sequence[str]) -> None:
        """Starts for this prompt, and comes to where these earlier turns of the policy had led."""

    async def step(self, action: str) -> Observation:
        """Answers the policy's turn, which ends with a stop text where there are any."""

    async def close(self) -> None:
        """Releases what it holds."""


@runtime_checkable
class Judging(Protocol):
    """An environment that also says how a response went that ended without it: by itself, by a limit, in circles."""

    async def conclude(self, turn: str) -> Outcome | None:
        """Judges the response; `turn` is what the policy wrote since the last answer. None: there is no outcome."""
