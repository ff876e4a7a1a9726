"""The process that an engine's library runs in: its start, its first commands, and its end."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path

from perilune.errors import InvalidInputError
from perilune.runtime.environment import without_secrets
from services.rollout.config import RolloutSettings
from services.rollout.engines.process import wire

ROOT = Path(__file__).resolve().parents[4]  # that `services` is imported from
STOP_PATIENCE_S = 5.0


@dataclass(frozen=True)
class EngineProcess:
    """A process that serves a version, and the line to it."""

    child: subprocess.Popen[bytes]
    line: Connection
    max_context: int  # of its model, in tokens

    @staticmethod
    def start(driver: str, command: wire.StartEngine, version: wire.Load) -> EngineProcess:
        """Returns when it serves the version. InvalidInputError says why it cannot. `driver` is module:class."""
        ours, theirs = Pipe()
        python = RolloutSettings().engine_python
        program = [python, "-m", "services.rollout.engines.process.child", driver, str(theirs.fileno())]
        environment = without_secrets(os.environ) | {
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        }
        try:
            child = subprocess.Popen(program, env=environment, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
        except OSError as error:
            raise InvalidInputError(f"PERILUNE_ENGINE_PYTHON={python} cannot be run: {error}") from error
        theirs.close()
        try:
            return EngineProcess(child, ours, _handshake(ours, command, version))
        except BaseException:
            _end(child)
            raise

    def end(self) -> None:
        """Kills it, and waits until it is gone."""
        _end(self.child)


def _handshake(line: Connection, command: wire.StartEngine, version: wire.Load) -> int:
    """Sends a new process its first commands; returns the model's context when it serves the version."""
    try:
        wire.send(line, command)
        wire.send(line, version)
        ready = wire.receive(line)
        if isinstance(ready, wire.Ready) and isinstance(loaded := wire.receive(line), wire.Loaded):
            return ready.max_context
        failed = ready if isinstance(ready, wire.Failed) else loaded
    except (EOFError, OSError):
        failed = wire.Failed("its process ended without a word; its log says why")
    raise InvalidInputError(
        f"the {command.engine} engine cannot serve this model. {getattr(failed, 'reason', failed)} "
        "(docs/engines.md says how to install engines; PERILUNE_ENGINE_PYTHON names the Python that has one)"
    )


def _end(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    child.wait(STOP_PATIENCE_S)
