"""A Python interpreter in the sandbox service: the policy writes a program between two marks, and its output follows.

One session a sample, opened at its first call. A sample that is continued on another worker executes its programs
again, in a new session, and what they print then is not said again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from perilune.api.sandbox.v1.sandbox_pb2 import ExecuteResponse
from perilune.api.trajectory.v1.trajectory_pb2 import Prompt
from perilune.client.sandbox import AsyncSandboxClient, AsyncSandboxSession
from perilune.errors import NotFoundError
from perilune.recipe import SandboxEnvironment
from services.rollout.config import RolloutSettings
from services.rollout.environments.base import Observation


class SandboxTool:
    """See `services.rollout.environments.base.Environment`."""

    def __init__(self, settings: RolloutSettings, table: SandboxEnvironment) -> None:
        self._client = AsyncSandboxClient(settings.sandbox_address)
        self._table = table
        self._session: AsyncSandboxSession | None = None

    @property
    def stop(self) -> tuple[str, ...]:
        """Texts that end a turn."""
        return (self._table.end,)

    async def reset(self, prompt: Prompt, turns: Sequence[str]) -> None:
        """Opens a session, and runs the programs of earlier turns in it."""
        self._session = await self._client.session(self._table.language)
        for turn in turns:
            await self._execute(turn)

    async def step(self, action: str) -> Observation:
        """Runs the turn's program, and answers with its output."""
        answer = await self._execute(action)
        return Observation(self._table.answer.format(output=_shown(answer)[: self._table.max_chars]))

    async def close(self) -> None:
        """Closes the session."""
        if self._session:
            with contextlib.suppress(NotFoundError):  # it died, or was idle for too long
                await self._session.close()
        await self._client.close()

    async def _execute(self, turn: str) -> ExecuteResponse:
        """Runs what stands between the last two marks; in a new interpreter if the program before killed the last."""
        program = turn.rpartition(self._table.end)[0].rpartition(self._table.begin)[2]
        assert self._session  # reset came first
        answer = await self._session.execute(program, self._table.wall_s)
        if not answer.alive:
            self._session = await self._client.session(self._table.language)
        return answer


def _shown(answer: ExecuteResponse) -> str:
    """The output as a person at an interpreter would see it."""
    said = [answer.execution.stdout.content, answer.execution.stderr.content]
    parts = [*(output.decode(errors="replace") for output in said), answer.result]
    return "\n".join(part.strip("\n") for part in parts if part)
