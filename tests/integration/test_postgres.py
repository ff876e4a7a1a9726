"""The master on a real PostgreSQL: a whole run, a second master, a wrong password, an outage."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from perilune.api.master.v1 import master_pb2 as m
from perilune.recipe import check_recipe
from perilune.runtime.bus import Bus
from services.master.single_master import has_master
from tests.integration.postgres import PASSWORD, Postgres
from tests.integration.test_master import RECIPE, fleet, master_on, trainer_of


@pytest.fixture
def postgres(monkeypatch: pytest.MonkeyPatch) -> Iterator[Postgres]:
    """A server that masters started by the test use, with the password from a file."""
    with Postgres() as server:
        password = server.folder / "secret"
        password.write_text(PASSWORD + "\n")
        monkeypatch.setenv("PERILUNE_DATABASE_URL", server.url.replace(f":{PASSWORD}@", "@"))
        monkeypatch.setenv("PERILUNE_DATABASE_PASSWORD_FILE", str(password))
        yield server


async def start_master(nats_url: str, home: Path, **settings: str) -> asyncio.subprocess.Process:
    """A master whose log can be read from its stderr."""
    environment = os.environ | {
        "PERILUNE_LISTEN": "127.0.0.1:0",
        "PERILUNE_NATS_URL": nats_url,
        "PERILUNE_HOME": str(home),
        **settings,
    }
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "services.master", env=environment, stderr=asyncio.subprocess.PIPE
    )


async def log_until(process: asyncio.subprocess.Process, text: str) -> None:
    assert process.stderr
    async with asyncio.timeout(60):
        while text not in (line := (await process.stderr.readline()).decode()):
            assert line, f"the master ended without saying {text!r}"


async def test_a_run_goes_to_a_balanced_ledger(postgres: Postgres, nats_url: str, tmp_path: Path) -> None:
    async with master_on(nats_url, tmp_path) as master, Bus.connect(nats_url, "fleet") as bus:
        await master.submit(check_recipe(RECIPE))
        async with trainer_of(master), fleet(bus):
            await master.commit(0)
            for iteration in range(2):
                assert len(await master.batch(iteration)) == 3
                await master.commit(iteration + 1, num_samples=6)
            run = await master.until(m.RUN_STATE_FINISHED)
        assert (run.ledger.dispatched, run.ledger.trained, run.ledger.balanced) == (12, 12, True)
        assert [evaluation.num_problems for evaluation in run.evaluations] == [5, 5]


async def test_a_second_master_refuses(postgres: Postgres, nats_url: str, tmp_path: Path) -> None:
    async with master_on(nats_url, tmp_path):
        second = await start_master(nats_url, tmp_path / "second")
        _, log = await asyncio.wait_for(second.communicate(), 60)
        assert second.returncode == 2
        assert b"another master works on postgresql" in log
        assert PASSWORD.encode() not in log
        assert await has_master(postgres.url)
    assert not await has_master(postgres.url)


async def test_a_second_master_refuses_on_sqlite_too(nats_url: str, tmp_path: Path) -> None:
    async with master_on(nats_url, tmp_path):
        second = await start_master(nats_url, tmp_path)
        _, log = await asyncio.wait_for(second.communicate(), 60)
        assert second.returncode == 2
        assert b"another master works on" in log


async def test_a_wrong_password_is_said_at_once_and_by_name(
    postgres: Postgres, nats_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("guess")
    monkeypatch.setenv("PERILUNE_DATABASE_PASSWORD_FILE", str(wrong))
    master = await start_master(nats_url, tmp_path, PERILUNE_PATIENCE_S="600")
    _, log = await asyncio.wait_for(master.communicate(), 60)
    assert master.returncode == 2
    assert b"PERILUNE_DATABASE_PASSWORD_FILE" in log


async def test_a_database_that_comes_late_is_waited_for(postgres: Postgres, nats_url: str, tmp_path: Path) -> None:
    postgres.stop()
    master = await start_master(nats_url, tmp_path, PERILUNE_PATIENCE_S="60")
    try:
        await log_until(master, "waiting for it")
        postgres.start()
        await log_until(master, "answers at")
    finally:
        master.terminate()
        await master.wait()


async def test_a_bus_that_never_comes_is_named(nats_url: str, tmp_path: Path) -> None:
    master = await start_master("nats://127.0.0.1:9", tmp_path, PERILUNE_PATIENCE_S="1")
    _, log = await asyncio.wait_for(master.communicate(), 60)
    assert master.returncode == 1
    assert b"no NATS server answers at nats://127.0.0.1:9" in log
    assert b"waiting for it" in log


async def test_a_run_goes_on_after_an_outage_of_the_database(postgres: Postgres, nats_url: str, tmp_path: Path) -> None:
    """The master ends when it loses the database, and says so; whoever starts it again has the run as it was."""
    async with Bus.connect(nats_url, "fleet") as bus:
        async with master_on(nats_url, tmp_path) as master:
            await master.submit(check_recipe(RECIPE))
            async with trainer_of(master), fleet(bus):
                await master.commit(0)
                await master.batch(0)
            postgres.stop()
            assert await asyncio.wait_for(master.process.wait(), 60) == 1
        postgres.start()
        async with master_on(nats_url, tmp_path) as master, trainer_of(master), fleet(bus):
            await master.commit(0)
            for iteration in range(2):
                assert len(await master.batch(iteration)) == 3
                await master.commit(iteration + 1, num_samples=6)
            run = await master.until(m.RUN_STATE_FINISHED)
            assert (run.ledger.dispatched, run.ledger.trained, run.ledger.balanced) == (12, 12, True)
