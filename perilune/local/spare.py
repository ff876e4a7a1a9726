"""A process that has loaded what a service needs and waits to become one: of a start, loading torch takes the most.

    python -m perilune.local.spare MODULE …      # then a line of JSON on stdin: what to become

The launcher keeps one, for whichever of its services dies first. It ends when its stdin does.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import json
import os
import runpy
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from perilune.imports import uncollected
from perilune.local.children import KEEP_FREED_MEMORY

PROGRAMS = {"trainer": "services.trainer.server", "rollout": "services.rollout.server"}
"""Services that take long to load, and the module that loads it all."""


class Spare:
    """The launcher's spare process, if there is one."""

    def __init__(self, env: Mapping[str, str], lock: int) -> None:
        """`env`: what it loads the modules with; `lock`: the home's, as every child inherits it."""
        self._env, self._lock = dict(env) | KEEP_FREED_MEMORY, lock
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Starts it, if it is not there."""
        if self._process is None or self._process.returncode is not None:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "perilune.local.spare", *PROGRAMS.values()),
                env=self._env,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,  # what cannot be loaded fails once more where it is needed
                start_new_session=True,
                pass_fds=[self._lock],
            )

    def become(self, service: str, env: Mapping[str, str], log: Path) -> asyncio.subprocess.Process | None:
        """Makes it a service, and gives its process; None if it cannot become that, or there is none now."""
        process = self._process
        if service not in PROGRAMS or process is None or process.returncode is not None or process.stdin is None:
            return None
        self._process = None
        role = {"module": f"services.{service}", "env": dict(env), "log": str(log)}
        process.stdin.write(json.dumps(role).encode() + b"\n")
        return process

    async def stop(self) -> None:
        """Ends it."""
        if self._process and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()


def main(modules: Sequence[str]) -> None:
    """Loads the modules, waits for its role, and takes it."""
    with uncollected():
        for name in modules:
            importlib.import_module(name)
    if line := sys.stdin.readline():
        _become(**json.loads(line))


def _become(module: str, env: Mapping[str, str], log: str) -> None:
    os.environ.clear()
    os.environ.update(env)
    output, nothing = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644), os.open(os.devnull, os.O_RDONLY)
    for descriptor, here in ((nothing, 0), (output, 1), (output, 2)):
        os.dup2(descriptor, here)
    if "OMP_NUM_THREADS" in env and "torch" in sys.modules:  # which has read it when it was loaded
        sys.modules["torch"].set_num_threads(int(env["OMP_NUM_THREADS"]))
    sys.argv = [module]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(sys.argv[1:])
