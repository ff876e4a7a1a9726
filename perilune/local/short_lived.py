"""Services that live for one command: a master that only reads, a sandbox, a reward service."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

from perilune.errors import (
    SettingsError,
    UnavailableError,
)
from perilune.local.children import complaint, log_tail
from perilune.local.home import (
    LOOPBACK,
    SERVICE_PATIENCE_S,
    STOP_PATIENCE_S,
    services_root,
    with_root,
)
from perilune.local.supervision import WRONG_SETTINGS, inherited

MODEL_PATIENCE_S = 1800.0  # a large model is read, moved to its device and probed


@contextlib.asynccontextmanager
async def reading_master(home: Path) -> AsyncIterator[str]:
    """A short-lived master that only reads the home's database; gives its address.

    UnavailableError or InvalidInputError, with what it said, if it does not come up.
    """
    env = {"PERILUNE_READ_ONLY": "1", "PERILUNE_HOME": str(home.resolve())}
    async with _short_lived("master", env, f"no master could be started to read {home}") as address:
        yield address


@contextlib.asynccontextmanager
async def recording_master(home: Path) -> AsyncIterator[str]:
    """A short-lived master that reads the home's database and records evaluations; gives its address.

    The home is made if it is not there. Errors as `reading_master`; also where a master works on the home meanwhile.
    """
    env = {"PERILUNE_RECORD_ONLY": "1", "PERILUNE_HOME": str(home.resolve())}
    async with _short_lived("master", env, f"no master could be started to record in {home}") as address:
        yield address


@contextlib.asynccontextmanager
async def own_sandbox(num_slots: int = 1) -> AsyncIterator[str]:
    """A short-lived sandbox; gives its address.

    UnavailableError or InvalidInputError, with what it said, if it does not come up.
    """
    env = {"PERILUNE_SANDBOX_NUM_SLOTS": str(num_slots)}
    async with _short_lived("sandbox", env, "no sandbox could be started") as address:
        yield address


@contextlib.asynccontextmanager
async def own_reward(sandbox: str | None = None) -> AsyncIterator[str]:
    """A short-lived reward service that answers calls alone; gives its address. Errors as `own_sandbox`.

    `sandbox`: where its programs run; where the environment says, if not given.
    """
    env = {"PERILUNE_SERVE_RUNS": "0"} | ({"PERILUNE_SANDBOX_ADDRESS": sandbox} if sandbox else {})
    async with _short_lived("reward", env, "no reward service could be started") as address:
        yield address


@contextlib.asynccontextmanager
async def own_model(folder: Path, name: str) -> AsyncIterator[str]:
    """A model behind a short-lived OpenAI-compatible endpoint; gives its URL. Errors as `own_sandbox`.

    Args:
        folder: a Hugging Face folder with safetensors and a tokenizer; or what else `perilune serve model` takes.
        name: what callers ask for.
    """
    env = {
        "PERILUNE_MODEL": str(folder.resolve() if folder.is_dir() else folder),
        "PERILUNE_MODEL_NAME": name,
        "PERILUNE_HTTP_LISTEN": f"{LOOPBACK}:0",
    }
    async with _short_lived(
        "rollout.standalone", env, f"{folder} could not be served", "http", MODEL_PATIENCE_S
    ) as url:
        yield f"{url}/v1"


@contextlib.asynccontextmanager
async def _short_lived(
    service: str, env: dict[str, str], trouble: str, face: str = "address", patience_s: float = SERVICE_PATIENCE_S
) -> AsyncIterator[str]:
    with tempfile.TemporaryDirectory(prefix="perilune-") as folder:
        ready_file, log = Path(folder) / f"{service}.json", Path(folder) / "log"
        env = {
            "PERILUNE_LISTEN": f"{LOOPBACK}:0",
            "PERILUNE_READY_FILE": str(ready_file),
            "PERILUNE_EXIT_WITH_PARENT": "1",
            "PYTHONPATH": with_root(services_root()),
            **env,
        }
        inheritance = inherited(os.environ, service)
        inheritance.pop("PERILUNE_METRICS_PORT", None)  # it may be a running service's
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                f"services.{service}",
                env=inheritance | env,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        try:
            deadline = time.monotonic() + patience_s
            while not ready_file.exists():
                if process.returncode is not None or time.monotonic() > deadline:
                    if process.returncode == WRONG_SETTINGS:
                        raise SettingsError(f"{trouble}: {complaint(log)}")
                    raise UnavailableError(f"{trouble}:\n{log_tail(log)}")
                await asyncio.sleep(0.02)
            yield json.loads(ready_file.read_text())[face]
        finally:
            await _end(process)


async def _end(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        await asyncio.wait_for(process.wait(), STOP_PATIENCE_S)
    except TimeoutError:
        process.kill()
        await process.wait()
