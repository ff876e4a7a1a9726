"""Every service as a process of its own, over TLS and with tokens, from the secrets and the bus's configuration that
compose mounts."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from perilune.channel import Credentials
from perilune.client import AsyncRunClient
from tests.conftest import find_nats_server, free_port

REPOSITORY = Path(__file__).parents[2]
DEPLOY = REPOSITORY / "deploy"
PATIENCE_S = 300.0


@dataclass
class Installation:
    """Secrets in a folder, ports, and what runs."""

    folder: Path
    nats_port: int = field(default_factory=free_port)
    master_port: int = field(default_factory=free_port)
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def secrets(self) -> Path:
        return self.folder / "secrets"

    @property
    def master(self) -> str:
        return f"localhost:{self.master_port}"

    def make_secrets(self) -> None:
        self.secrets.mkdir()
        command = ["sh", str(DEPLOY / "secrets" / "make.sh"), "--tls"]
        subprocess.run(command, env=os.environ | {"SECRETS": str(self.secrets)}, check=True)

    def start_nats(self) -> None:
        """The server with deploy/nats/nats-tls.conf; only where files and ports are is another."""
        text = (DEPLOY / "nats" / "nats-tls.conf").read_text()
        for said, here in {
            "../../run/secrets/nats_passwords.conf": "secrets/nats_passwords.conf",
            "/run/secrets/tls.": f"{self.secrets}/nats.",
            "0.0.0.0:4222": f"127.0.0.1:{self.nats_port}",
            "127.0.0.1:8222": "127.0.0.1:-1",
            "/data": f"{self.folder}/nats",
        }.items():
            assert said in text
            text = text.replace(said, here)
        config = self.folder / "nats.conf"
        config.write_text(text)
        with (self.folder / "nats.log").open("wb") as log:
            self.running.append(subprocess.Popen([find_nats_server(), "-c", str(config)], stdout=log, stderr=log))

    def settings(self, service: str) -> dict[str, str]:
        """Those of deploy/compose.tls.yml."""
        secrets = self.secrets
        given = {
            "LISTEN": "127.0.0.1:0" if service != "master" else f"127.0.0.1:{self.master_port}",
            "TOKENS_FILE": secrets / "tokens.toml",
            "TOKEN_FILE": secrets / f"token_{service}",
            "TLS_CA": secrets / "ca.pem",
            "TLS_CERT": secrets / f"{service}.pem",
            "TLS_KEY": secrets / f"{service}.key",
            "TLS_SERVER_NAME": "perilune",
            "NATS_URL": f"tls://{service}@localhost:{self.nats_port}",
            "NATS_PASSWORD_FILE": secrets / f"nats_{service}",
            "MASTER_ADDRESS": self.master,
            "HOME": self.folder / "runs",
            "PATIENCE_S": 60,
            "GRADER_PROCESSES": 1,
        }
        return {f"PERILUNE_{name}": str(value) for name, value in given.items()} | {"OMP_NUM_THREADS": "1"}

    def start(self, service: str, **changes: str) -> subprocess.Popen[bytes]:
        with self.log_of(service).open("ab") as log:
            command = [sys.executable, "-m", f"services.{service}"]
            environment = os.environ | self.settings(service) | changes
            self.running.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=REPOSITORY))
        return self.running[-1]

    def log_of(self, service: str) -> Path:
        return self.folder / f"{service}.log"

    async def end_of(self, process: subprocess.Popen[bytes]) -> int:
        return await asyncio.to_thread(process.wait, PATIENCE_S)

    def client(self, caller: str = "operator") -> AsyncRunClient:
        token = (self.secrets / f"token_{caller}").read_text().strip()
        return AsyncRunClient(self.master, credentials=Credentials(token=token, tls_ca=self.secrets / "ca.pem"))

    def stop(self) -> None:
        for process in reversed(self.running):
            process.kill()
            process.wait()
