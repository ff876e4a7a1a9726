"""`perilune` as a user runs it: a subprocess with its own home."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parent.parent.parent
# A model with which a run is a matter of seconds, for tests of what happens around it.
SMALL = [
    *("--set", "model.create.hidden_size=32"),
    *("--set", "model.create.intermediate_size=64"),
    *("--set", "model.create.num_layers=1"),
]
PATIENCE_S = 900  # for a machine that is slow and busy; nothing waits so long in earnest
launched: list[Launched] = []


def command(*arguments: str) -> list[str]:
    return [str(Path(sys.executable).with_name("perilune")), *arguments]


@dataclass
class Launched:
    """A running `perilune` command."""

    process: asyncio.subprocess.Process
    home: Path

    def pid_of(self, service: str) -> int:
        """The process of a service that answers, by its ready file; 0 if there is none now."""
        try:
            return int(json.loads((self.home / "services" / f"{service}.json").read_text())["pid"])
        except (OSError, ValueError):
            return 0

    def kill_9(self, service: str) -> None:
        os.kill(self.pid_of(service), signal.SIGKILL)

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            assert self.process.returncode is None, f"the command ended before {what}: {await self.said()}"
            assert time.monotonic() < deadline, f"waited in vain for {what}"
            await asyncio.sleep(0.1)

    async def until_version(self, run_id: str, number: int) -> None:
        """Waits until a version's checkpoint is there: it is written just before it is published."""
        folder = self.home / run_id / "checkpoints"
        await self.until(
            lambda: any(int(path.name[1:]) >= number for path in folder.glob("v??????")), f"version {number}"
        )

    async def said(self) -> str:
        assert self.process.stderr
        return (await self.process.stderr.read()).decode()

    async def end(self) -> dict[str, Any]:
        """Waits for the end; what it printed as JSON."""
        out, err = await asyncio.wait_for(self.process.communicate(), PATIENCE_S)
        assert self.process.returncode == 0, f"exit status {self.process.returncode}\n{err.decode()}"
        return json.loads(out)


async def launch(home: Path, *arguments: str, **environment: str) -> Launched:
    """Starts a command, whose services share the cores as they would for a user."""
    process = await asyncio.create_subprocess_exec(
        *command(*arguments, "--home", str(home)),
        cwd=REPOSITORY,
        env={name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"} | environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    launched.append(Launched(process, home))
    return launched[-1]
