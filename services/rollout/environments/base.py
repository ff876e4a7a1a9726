"""What a policy may talk to in the middle of a response: a tool, a simulator, an interpreter.

The policy writes until it has written one of the environment's stop texts, or ends. Then `step` gets the text of that
turn, and what it says is appended to the response as tokens that stay out of the loss. An environment is one sample's:
it is made, reset, stepped and closed. A sample may be continued on another worker, so an environment must be able to
come to where it was by repeating the turns; what it said then is not said again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from perilune.api.trajectory.v1.trajectory_pb2 import Prompt


@dataclass(frozen=True)
class Observation:
    """What an environment says to a turn."""

    text: str
    is_final: bool = False  # the response ends with it


class Environment(Protocol):
    """One sample's counterpart. An error of its machinery is raised, by a name of `perilune.errors`, and retried."""

    @property
    def stop(self) -> tuple[str, ...]:
        """Texts with which the policy hands over the word."""

    async def reset(self, prompt: Prompt, turns: Sequence[str]) -> None:
        """Starts for this prompt, and comes to where these earlier turns of the policy had led."""

    async def step(self, action: str) -> Observation:
        """Answers the policy's turn, which ends with a stop text."""

    async def close(self) -> None:
        """Lets go of what it holds."""
