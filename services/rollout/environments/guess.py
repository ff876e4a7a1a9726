"""A game: the policy guesses the whole number that is the prompt's reference, and is answered `higher` or `lower`.

Each turn is a guess, of which the last number counts. The outcome is 1 if the number was found, else 0.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from perilune.api.trajectory.v1.trajectory_pb2 import Prompt
from perilune.errors import InvalidInputError
from perilune.recipe import GuessEnvironment
from services.rollout.config import RolloutSettings
from services.rollout.environments.base import Observation, Outcome

_NUMBER = re.compile(r"-?\d{1,18}")


class Guess:
    """See `services.rollout.environments.base.Environment`, and `Judging` there."""

    stop: tuple[str, ...] = ()

    def __init__(self, settings: RolloutSettings, table: GuessEnvironment) -> None:
        self._table = table
        self._secret = 0
        self._num_guesses = 0

    async def reset(self, prompt: Prompt, turns: Sequence[str]) -> None:
        """InvalidInputError if the prompt's reference is no whole number."""
        if not _NUMBER.fullmatch(prompt.reference.strip()):
            raise InvalidInputError(f"the reference {prompt.reference!r:.80} is no whole number that could be guessed")
        self._secret, self._num_guesses = int(prompt.reference), len(turns)

    async def step(self, action: str) -> Observation:
        """Answers right, higher or lower; the outcome comes with the last guess."""
        self._num_guesses += 1
        numbers = _NUMBER.findall(action)
        if numbers and int(numbers[-1]) == self._secret:
            return self._answer("right", Outcome(1.0, reason=f"found in {self._num_guesses} guesses"))
        hint = "higher" if numbers and int(numbers[-1]) < self._secret else "lower" if numbers else "what"
        is_over = self._num_guesses >= self._table.guesses
        return self._answer(hint, await self.conclude("") if is_over else None)

    async def conclude(self, turn: str) -> Outcome | None:
        """The outcome of a game that ended without the number."""
        return Outcome(0.0, reason=f"{self._secret} was not found in {self._num_guesses} guesses")

    async def close(self) -> None:
        """Holds nothing."""

    def _answer(self, word: str, outcome: Outcome | None) -> Observation:
        return Observation(messages=[{"role": self._table.role, "content": word}], outcome=outcome)
