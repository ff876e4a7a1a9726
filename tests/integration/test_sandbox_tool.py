"""The sandbox's session as a tool, with a real sandbox service."""

from __future__ import annotations

import pytest

from perilune.api.trajectory.v1.trajectory_pb2 import Prompt
from perilune.errors import UnavailableError
from perilune.recipe import SandboxEnvironment
from services.rollout.config import RolloutSettings
from services.rollout.environments import make_environment
from tests.integration.test_sandbox_service import address, service

__all__ = ["address", "service"]  # fixtures

TABLE = SandboxEnvironment(type="sandbox", answer="[{output}]")


def code(program: str) -> str:
    return f"Let me see. <code>{program}</code>"


async def test_programs_share_a_session_and_another_worker_comes_to_where_it_was(address: str) -> None:
    settings = RolloutSettings(sandbox_address=address)
    first, second = make_environment(TABLE, settings), make_environment(TABLE, settings)
    await first.reset(Prompt(), [])
    assert (await first.step(code("x = 6\nprint('six')"))).text == "[six]"
    assert (await first.step(code("x * 7"))).text == "[42]"
    assert "ZeroDivisionError" in (await first.step(code("1 / 0"))).text
    await first.close()
    await second.reset(Prompt(), [code("x = 6\nprint('six')"), code("x += 1")])
    assert (await second.step(code("x"))).text == "[7]"
    await second.close()


async def test_a_program_that_ends_the_interpreter_gets_a_new_one(address: str) -> None:
    environment = make_environment(TABLE, RolloutSettings(sandbox_address=address))
    await environment.reset(Prompt(), [])
    await environment.step(code("import os; os._exit(3)"))
    assert (await environment.step(code("1 + 1"))).text == "[2]"
    await environment.close()


async def test_a_sandbox_that_is_not_there_is_no_answer() -> None:
    environment = make_environment(TABLE, RolloutSettings(sandbox_address="127.0.0.1:1"))
    with pytest.raises(UnavailableError):
        await environment.reset(Prompt(), [])
    await environment.close()
