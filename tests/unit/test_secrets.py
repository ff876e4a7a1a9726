"""Secrets stay where they belong: out of logs, of child processes and of other users' reach."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

import pytest

from perilune.logs import Discreet, without_secrets
from perilune.runtime import environment
from services.master.schema import check_file
from services.reward.processes import Processes


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("no server at nats://user:pa:ss@host:4222; start", "no server at nats://***@host:4222; start"),
        ("'postgresql+asyncpg://me:p@ss@db/x'", "'postgresql+asyncpg://***@db/x'"),
        ("nats://a-token@host", "nats://***@host"),
        ("postgresql://db/x?user=me&password=secret&sslmode=on", "postgresql://db/x?user=me&password=***&sslmode=on"),
        ("https://host/path and me@host", "https://host/path and me@host"),
    ],
)
def test_no_url_tells_its_secret(text: str, shown: str) -> None:
    assert without_secrets(text) == shown


def test_nor_does_a_trace() -> None:
    try:
        raise ValueError("cannot reach tls://me:word@nats")
    except ValueError:
        record = logging.LogRecord("n", logging.ERROR, "f", 1, "at %s", ("tls://me:word@nats",), sys.exc_info())
    line = Discreet("%(message)s").format(record)
    assert "tls://***@nats" in line
    assert "me:" not in line


SECRETS = {
    "PERILUNE_TOKEN": "t",
    "PERILUNE_NATS_PASSWORD_FILE": "/run/secrets/nats_password",
    "PERILUNE_NATS_URL": "nats://me:secret@host",
    "PERILUNE_JUDGE_API_KEY": "k",
    "AWS_SESSION": "s",
}
PLAIN = {"PATH": "/bin", "TOKENIZERS_PARALLELISM": "0", "PERILUNE_MASTER_ADDRESS": "127.0.0.1:1", "KEYMAP": "us"}


def test_a_child_is_given_no_secret() -> None:
    assert environment.without_secrets(SECRETS | PLAIN) == PLAIN


async def test_nor_is_a_grader_process(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    with Processes(1, 20.0, 1 << 30) as processes:
        assert [await processes.run(os.getenv, name) for name in SECRETS] == [None] * len(SECRETS)


def test_a_database_is_its_owners_alone(tmp_path: Path) -> None:
    old = tmp_path / "old.db"
    old.touch(0o644)
    for path in (old, tmp_path / "new.db"):
        check_file(str(path))
        assert path.stat().st_mode & 0o777 == 0o600
