"""A spare process takes the role that it is given: that module, that environment and that log."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from perilune.local import spare
from perilune.local.spare import Spare

PROGRAM = "import os, sys; print(os.environ['WORD'], 'HOME' in os.environ, len(sys.argv), sys.stdin.read() == '')"


async def test_a_spare_process_becomes_a_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    services = tmp_path / "services"
    services.mkdir()
    (services / "__init__.py").touch()
    (services / "greeter.py").write_text(PROGRAM)
    monkeypatch.setattr(spare, "PROGRAMS", {"greeter": "json"})
    monkeypatch.chdir(tmp_path)  # where Python looks for packages first
    lock = os.open(tmp_path, os.O_RDONLY)
    try:
        one = Spare(os.environ | {"PYTHONPATH": str(tmp_path)}, lock)
        assert one.become("greeter", {}, tmp_path / "log") is None  # there is none yet
        await one.start()
        assert one.become("sandbox", {}, tmp_path / "log") is None  # it has not loaded that
        process = one.become("greeter", {"WORD": "hello"}, tmp_path / "log")
        assert process is not None
        assert await asyncio.wait_for(process.wait(), 60) == 0
        assert (tmp_path / "log").read_text() == "hello False 1 True\n"
        await one.start()
        await one.stop()
    finally:
        os.close(lock)
