"""A home that 0.1.0 left: its runs go on under this version, and no sample of theirs is lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.launcher import launch
from tests.unit.test_upgrade import unpack_old_home

QUIETLY = ("--rollouts", "1", "--no-view", "--json")


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("command", "num_iterations"), [(("resume", "stopped"), 6), (("extend", "finished", "4"), 4)], ids=str
)
async def test_a_run_of_0_1_0_goes_on(command: tuple[str, ...], num_iterations: int, tmp_path: Path) -> None:
    launched = await launch(unpack_old_home(tmp_path), "run", *command, *QUIETLY)
    run = await launched.end()
    ledger = run["ledger"]
    assert (run["state"], run["iteration"], ledger["balanced"]) == ("finished", num_iterations, True)
    assert ledger["dispatched"] == ledger["trained"] == 16 * num_iterations
    assert "resuming from" in (tmp_path / "logs" / "trainer.log").read_text()
    assert [version["version"] for version in run["versions"]] == list(range(num_iterations + 1))
