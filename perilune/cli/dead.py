"""Commands about messages that were given up."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console
from rich.table import Table

from perilune.api.master.v1.master_pb2 import KeptLetter
from perilune.cli.facts import clock_time, iso_time
from perilune.cli.masters import running_master
from perilune.cli.report import print_unbroken
from perilune.client import AsyncRunClient
from perilune.errors import InvalidInputError, NotFoundError

T = TypeVar("T")
console = Console(highlight=False)


def show_all(run_id: str, home: Path, master: str | None, as_json: bool) -> None:
    """Lists what was given up."""
    letters = _ask(home, master, lambda client: client.dead_letters(run_id))
    if as_json:
        print(json.dumps([as_document(letter) for letter in letters], indent=2))
    elif letters:
        print_unbroken(console, _table(letters))
    else:
        console.print("no message is kept that was given up")


def show(number: int, home: Path, master: str | None, as_json: bool, payload: Path | None) -> None:
    """Shows one letter whole, and writes the message that it holds to a file if one is given. NotFoundError."""
    letters = _ask(home, master, lambda client: client.dead_letters(with_payloads=True))
    letter = next((letter for letter in letters if letter.number == number), None)
    if letter is None:
        raise NotFoundError(f"there is no dead letter {number}; `perilune dead list` shows those there are")
    if payload:
        payload.write_bytes(letter.letter.payload)
    document = as_document(letter)
    if as_json:
        print(json.dumps(document, indent=2))
        return
    for name, value in document.items():
        console.print(f"{name}: {', '.join(value) if isinstance(value, list) else value}", markup=False, soft_wrap=True)


def retry(number: int, home: Path, master: str | None) -> None:
    """Gives a message another try."""
    num_samples = _ask(home, master, lambda client: client.retry_dead(number))
    what = f"{num_samples} samples are awaited again" if num_samples else "the message is on its way once more"
    console.print(f"{number}: {what}")


def drop(numbers: Sequence[int], run_id: str, home: Path, master: str | None, *, all_of_them: bool) -> None:
    """Forgets some messages, or all of a run, or all."""
    if bool(numbers) == all_of_them:
        raise InvalidInputError("name the numbers of the letters to drop, or --all of them")

    async def forget(client: AsyncRunClient) -> int:
        wanted = [letter.number for letter in await client.dead_letters(run_id)] if all_of_them else list(numbers)
        return await client.drop_dead(wanted)

    console.print(f"dropped {_ask(home, master, forget)}")


def as_document(letter: KeptLetter) -> dict[str, Any]:
    """A letter as JSON, without the message that it holds."""
    about = letter.letter
    return {
        "number": letter.number,
        "time": iso_time(letter.time_unix_ns),
        "run": about.run_id,
        "subject": about.subject,
        "message_id": about.message_id,
        "reason": about.reason,
        "deliveries": about.num_deliveries,
        "samples": list(about.trajectory_ids),
        "bytes": letter.num_payload_bytes,
    }


def _table(letters: Sequence[KeptLetter]) -> Table:
    table = Table("number", "time", "run", "subject", "samples", "reason", box=None, pad_edge=False)
    for letter in letters:
        about = letter.letter
        samples = str(len(about.trajectory_ids)) if about.trajectory_ids else ""
        cells = (about.run_id, about.subject, samples, about.reason[:200])
        table.add_row(str(letter.number), clock_time(letter.time_unix_ns), *map(_plain, cells))
    return table


def _plain(text: str) -> str:
    """A text of others as it can be printed: no line breaks, no terminal's control characters, no markup."""
    return "".join(c if c.isprintable() else "?" for c in text).replace("[", r"\[")


def _ask(home: Path, master: str | None, ask: Callable[[AsyncRunClient], Awaitable[T]]) -> T:
    async def asked() -> T:
        async with running_master(home, master) as client:
            return await ask(client)

    return asyncio.run(asked())
