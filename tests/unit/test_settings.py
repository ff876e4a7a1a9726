"""A wrong setting is named, with what was expected of it."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from perilune.errors import InvalidInputError
from perilune.runtime.service import ServiceSettings
from services.reward.config import RewardSettings
from services.sandbox.config import JailSettings, SandboxSettings


def test_all_wrong_variables_are_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERILUNE_METRICS_PORT", "80000")
    monkeypatch.setenv("PERILUNE_LOG_LEVEL", "loud")
    with pytest.raises(InvalidInputError, match=r"PERILUNE_METRICS_PORT: .*65536.*PERILUNE_LOG_LEVEL: .*not 'LOUD'"):
        ServiceSettings()


@pytest.mark.parametrize(
    ("variable", "value", "complaint"),
    [
        ("PERILUNE_SANDBOX_LEVELS", "gvisr", "PERILUNE_SANDBOX_LEVELS.0: .*'gvisor'.*not 'gvisr'"),
        ("PERILUNE_TOOLS", "{lean", "PERILUNE_TOOLS: no JSON: Expecting property name"),
    ],
)
def test_a_part_of_a_setting_is_named(
    variable: str, value: str, complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(InvalidInputError, match=complaint):
        SandboxSettings()


def test_a_setting_of_another_class_is_named_by_its_own_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERILUNE_SANDBOX_NUM_SLOTS", "0")
    with pytest.raises(InvalidInputError, match=r"PERILUNE_SANDBOX_NUM_SLOTS: .*not '0'"):
        JailSettings()
    with pytest.raises(InvalidInputError, match=r"PERILUNE_SANDBOX_NUM_SLOTS: .*not '0'"):
        SandboxSettings()


def test_a_log_level_is_any_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERILUNE_LOG_LEVEL", "debug")
    assert RewardSettings().log_level == "DEBUG"


@pytest.mark.slow
def test_a_service_with_a_wrong_setting_ends_with_status_2_and_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERILUNE_PATIENCE_S", "long")
    done = subprocess.run(
        [sys.executable, "-m", "services.reward"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert re.fullmatch(r".* E reward .*: PERILUNE_PATIENCE_S: .*, not 'long'\n", done.stderr)
