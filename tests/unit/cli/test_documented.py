"""Every command that the docs, the recipes and our own messages name is one that the command line takes."""

from __future__ import annotations

import functools
import os
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer.main

from perilune.cli.commands import app

ROOT = Path(__file__).parents[3]
FENCED = re.compile(r"^\s*(?:\$ )?(?:[A-Z_]+=\S+ )*(perilune [^\n]*)", re.MULTILINE)
QUOTED = re.compile(r"`(?:[A-Z_]+=\S+ )*(perilune [^`\n]*)`")
PLACEHOLDER = re.compile(r"\{[^{}]*\}")


def named_in(path: Path) -> set[str]:
    """The commands that a file names: those between backticks, and, in text for readers, lines of code blocks."""
    text = path.read_text().replace("\\\n", " ")
    found = {match[1] for match in QUOTED.finditer(text)}
    if path.suffix == ".md":
        blocks = text.split("```")[1::2]
        found |= {match[1] for block in blocks for match in FENCED.finditer(block)}
    return found


def words_of(command: str) -> list[str]:
    """The words of a command, without a comment, a pipe or a redirection behind it."""
    plain = PLACEHOLDER.sub("X", command).replace("…", "")
    lexer = shlex.shlex(plain, posix=True, punctuation_chars="|&;<>")
    lexer.whitespace_split = True
    words = []
    for word in lexer:
        if set(word) <= set("|&;<>"):
            break
        words.append(word)
    return words[1:]


@functools.cache
def command_line() -> Any:
    """The whole command line, which takes a while to put together."""
    return typer.main.get_command(app)


def refuse(words: list[str]) -> None:
    """LookupError for a command or an option that does not exist."""
    command = command_line()
    while hasattr(command, "commands") and words and not words[0].startswith("-"):
        if words[0] not in command.commands:
            raise LookupError(f"there is no command {words[0]!r} of {command.name}")
        command, words = command.commands[words[0]], words[1:]
    known = {"-h", "--help", *(name for option in command.params for name in option.opts)}
    for word in words:
        if not word.startswith("-") and command.context_settings.get("ignore_unknown_options"):
            return  # what follows the program is the program's
        if len(word) > 1 and word.startswith("-") and word.partition("=")[0] not in known:
            raise LookupError(f"{command.name} has no option {word!r}")


FILES = [
    *(ROOT / "docs").glob("*.md"),
    *ROOT.glob("*.md"),
    *(ROOT / "recipes").glob("*.toml"),
    *(path for folder in ("perilune", "services") for path in (ROOT / folder).rglob("*.py")),
]
COMMANDS = sorted({command for path in FILES for command in named_in(path)})


def test_commands_are_found_where_they_are_written() -> None:
    assert "perilune score --graders" in COMMANDS
    assert len(COMMANDS) > 50


@pytest.mark.parametrize("command", COMMANDS)
def test_a_named_command_exists(command: str) -> None:
    refuse(words_of(command))


@pytest.mark.parametrize("wrong", ["perilune scores", "perilune run go X", "perilune score --grader-list"])
def test_one_that_does_not_exist_is_found(wrong: str) -> None:
    with pytest.raises(LookupError):
        refuse(words_of(wrong))


IN_BLOCKS = sorted(
    {
        match[1]
        for path in FILES
        if path.suffix == ".md"
        for block in path.read_text().replace("\\\n", " ").split("```")[1::2]
        for match in FENCED.finditer(block)
    }
)


@pytest.mark.parametrize("command", [command for command in IN_BLOCKS if words_of(command)])
def test_a_command_of_a_block_is_taken_with_all_its_arguments(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("PERILUNE_")]:
        monkeypatch.delenv(name)
    leaf, words = command_line(), words_of(command)
    for file in (word for word in words if word.endswith(".jsonl")):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()  # a file of the reader's
    while hasattr(leaf, "commands") and words:  # some groups are commands themselves
        leaf, words = leaf.commands[words[0]], words[1:]
    leaf.make_context(leaf.name, words)
