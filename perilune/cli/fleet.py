"""Commands about the fleet: who serves which version, which versions are kept, and going back to one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table
from rich.text import Text

from perilune.api.master.v1.master_pb2 import Worker
from perilune.api.weights.v1.weights_pb2 import ListVersionsResponse
from perilune.cli.console import Console
from perilune.cli.facts import clock_time, iso_time
from perilune.cli.masters import running_master
from perilune.cli.report import print_unbroken
from perilune.client import AsyncWeightsClient
from perilune.errors import MissingDependencyError, NotFoundError
from perilune.policies import shown_version, version_as_json

console = Console(highlight=False)


@dataclass(frozen=True)
class Member:
    """A worker at its place in the tree."""

    worker: Worker
    depth: int
    source: str  # the id of whom it got its version from; its address where that has left; empty if it has none
    num_behind: int | None  # versions behind its run's newest; None if it serves none


def members(workers: Sequence[Worker]) -> list[Member]:
    """The fleet as a tree, each member below its source of weights; trainers first, then those without a version."""
    by_address = {worker.address: worker for worker in workers if worker.address}
    newest: dict[str, int] = {}
    for worker in workers:
        if worker.HasField("policy"):
            newest[worker.run_id] = max(newest.get(worker.run_id, 0), worker.policy.number)
    found: list[Member] = []

    def add(worker: Worker, depth: int) -> None:
        source = by_address.get(worker.weights_from)
        behind = newest[worker.run_id] - worker.policy.number if worker.HasField("policy") else None
        found.append(Member(worker, depth, source.id if source else worker.weights_from, behind))
        below = (each for each in workers if worker.address and each.weights_from == worker.address)
        for each in sorted(below, key=lambda each: each.id):
            if all(each.id != member.worker.id for member in found):
                add(each, depth + 1)

    for worker in sorted(workers, key=lambda each: (each.kind != "trainer", each.id)):
        is_root = by_address.get(worker.weights_from) is None
        if is_root and all(worker.id != member.worker.id for member in found):
            add(worker, 0)
    for worker in workers:  # two that name each other: one of them has moved and not said so yet
        if all(worker.id != member.worker.id for member in found):
            add(worker, 0)
    return found


def show(home: Path, master: str | None, as_json: bool) -> None:
    """Prints the fleet as it is now."""
    found = members(asyncio.run(_workers(home, master)))
    if as_json:
        print(json.dumps([_as_json(member) for member in found], indent=2))
    elif found:
        print_unbroken(console, _table(found))
    else:
        console.print(
            "no worker has joined the fleet; `perilune serve rollout --master HOST:PORT` starts a worker",
            soft_wrap=True,
        )


def versions(run_id: str, home: Path, master: str | None, as_json: bool) -> None:
    """Prints the versions that a run's trainer keeps."""

    async def ask() -> ListVersionsResponse:
        async with AsyncWeightsClient(await _trainer_of(run_id, home, master)) as client:
            return await client.versions(run_id)

    kept = asyncio.run(ask())
    if as_json:
        rows = [
            {
                **version_as_json(each.version),
                "base": each.base.number if each.HasField("base") else None,
                "bytes": each.num_bytes,
                "pinned": each.pinned,
                "served": each.version == kept.served,
            }
            for each in kept.versions
        ]
        print(json.dumps({"versions": rows, "held": kept.held}, indent=2))
        return
    table = _new_table("version", "digest", "kept as", "bytes", "")
    for each in kept.versions:
        notes = ["served" + " and held" * kept.held] * (each.version == kept.served) + ["pinned"] * each.pinned
        table.add_row(
            shown_version(each.version, mark=""),
            each.version.digest[:8],
            f"change of {each.base.number}" if each.HasField("base") else "whole",
            f"{each.num_bytes:,}",
            ", ".join(notes),
        )
    print_unbroken(console, table)


def serve(run_id: str, number: int | None, home: Path, master: str | None) -> None:
    """Has the fleet serve a version; None: the newest, and those to come."""

    async def ask() -> str:
        async with AsyncWeightsClient(await _trainer_of(run_id, home, master)) as client:
            served = await client.serve(run_id, number)
            return f"{run_id}: the fleet is sent version {served.number} ({served.digest[:8]})"

    console.print(asyncio.run(ask()), soft_wrap=True)
    if number is not None:
        console.print(
            f"newer versions are held back, and what needs samples of them waits; `perilune fleet serve {run_id}` "
            "goes back to the newest",
            soft_wrap=True,
        )


def pin(run_id: str, number: int, pinned: bool, home: Path, master: str | None) -> None:
    """Keeps a version whatever comes after it, or no longer."""

    async def ask() -> None:
        async with AsyncWeightsClient(await _trainer_of(run_id, home, master)) as client:
            await client.pin(run_id, number, pinned)

    asyncio.run(ask())
    console.print(f"{run_id}: version {number} is {'pinned' if pinned else 'not pinned'}")


def export(run_id: str, number: int, out: Path, home: Path) -> None:
    """Writes a kept version as a Hugging Face model folder; reads the home's files, so nothing need run."""
    try:
        from perilune.weights.store import VersionStore
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"reading weights needs the package {error.name}; try: pip install 'perilune[rollout]'"
        ) from error
    VersionStore(home / run_id / "versions").export(number, out)
    console.print(f"{run_id}: version {number} is in {out}", soft_wrap=True)


async def _workers(home: Path, master: str | None) -> list[Worker]:
    async with running_master(home, master) as client:
        return list((await client.fleet()).workers)


async def _trainer_of(run_id: str, home: Path, master: str | None) -> str:
    for worker in await _workers(home, master):
        if worker.kind == "trainer" and worker.run_id == run_id:
            return worker.address
    raise NotFoundError(f"no trainer has the run {run_id!r} now; `perilune run list` shows the runs")


def _as_json(member: Member) -> dict[str, object]:
    worker = member.worker
    served = worker.policy if worker.HasField("policy") else None
    return {
        "id": worker.id,
        "kind": worker.kind,
        "address": worker.address,
        "run": worker.run_id or None,
        **(version_as_json(served) if served else {"version": None, "digest": None}),
        "versions_behind": member.num_behind,
        "weights_from": member.source or None,
        "host": worker.host or None,
        "pid": worker.pid or None,
        "trouble": worker.trouble or None,
        "trouble_since": iso_time(worker.trouble_since_unix_ns),
    }


def _table(found: Sequence[Member]) -> Table:
    table = _new_table("worker", "run", "version", "digest", "", "weights from", "where", "trouble")
    for member in found:
        worker = member.worker
        has = worker.HasField("policy")
        table.add_row(
            Text("  " * member.depth + worker.id, style="bold"),
            worker.run_id,
            shown_version(worker.policy, mark="") if has else "",
            worker.policy.digest[:8] if has else "",
            f"[yellow]{member.num_behind} behind[/]" if member.num_behind else "",
            member.source,
            _place(worker),
            Text(
                f"{worker.trouble} since {clock_time(worker.trouble_since_unix_ns)}" if worker.trouble else "", "yellow"
            ),
        )
    return table


def _place(worker: Worker) -> str:
    """The process as `docker ps` and `ps` name it."""
    process = f"{worker.host} process {worker.pid}" if worker.pid else ""
    return ", ".join(filter(None, [process, worker.address]))


def _new_table(*headings: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="dim")
    for heading in headings:
        table.add_column(heading, justify="right" if heading in ("version", "bytes") else "left")
    return table
