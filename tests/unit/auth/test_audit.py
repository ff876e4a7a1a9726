"""Which caller changed what is written down, refused or not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from perilune.errors import StateError
from perilune.runtime.audit import Audit
from perilune.runtime.auth import Caller

STOP = "perilune.api.master.v1.RunService/StopRun"


def test_a_change_and_a_refusal_are_lines_with_their_caller(tmp_path: Path) -> None:
    audit, alice = Audit(tmp_path), Caller("alice", frozenset({"submitter"}))
    with alice.call(STOP), audit.noted("stop", "run", failure=""):
        pass
    with pytest.raises(StateError), alice.call(STOP), audit.noted("stop", "run\n{}", number=0):
        raise StateError("it has ended already")
    with audit.noted("submit", "other", recipe="sums"):
        pass
    file = tmp_path / "audit.jsonl"
    assert file.stat().st_mode & 0o777 == 0o600
    first, second, third = map(json.loads, file.read_text().splitlines())
    assert first.pop("time").endswith("Z")
    assert first == {"caller": "alice", "roles": ["submitter"], "action": "stop", "run": "run"}
    assert (second["run"], second["refused"]) == ("run\n{}", "StateError: it has ended already")
    assert (third["caller"], third["recipe"]) == ("anyone", "sums")


def test_a_log_that_cannot_be_written_stops_no_change(tmp_path: Path) -> None:
    with Audit(tmp_path / "nowhere").noted("stop", "run"):
        pass
