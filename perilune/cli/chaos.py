"""`perilune chaos`: a recipe on services of its own, led through faults."""

from __future__ import annotations

import asyncio
import json
import math
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from perilune.chaos.audit import SHOWN
from perilune.chaos.campaign import Campaign, Outcome
from perilune.chaos.network import Network
from perilune.chaos.plan import plan
from perilune.chaos.processes import Processes
from perilune.cli.console import Console
from perilune.cli.masters import local_credentials
from perilune.client import AsyncRunClient
from perilune.local.cards import load_here
from perilune.local.cluster import local_cluster
from perilune.recipe import Recipe
from perilune.recipe.needs import needs

NAMED_WITHIN_S = 30.0


@dataclass(frozen=True)
class Wanted:
    """What is asked for."""

    seed: int
    num_faults: int
    kinds: tuple[str, ...]
    targets: tuple[str, ...]
    longest_s: float
    num_rollouts: int
    num_rewards: int
    hung_s: float


def chaos(recipe: Recipe, name: str, home: Path | None, wanted: Wanted, as_json: bool) -> int:
    """Leads a recipe through faults and prints what came of it; the exit status is 1 if anything was lost or hung."""
    console = Console(stderr=as_json, highlight=False, soft_wrap=True, markup=False)
    folder = home or Path(tempfile.mkdtemp(prefix="perilune-chaos-"))
    outcome = asyncio.run(_lead(recipe, name or f"chaos-{wanted.seed}", folder, wanted, console))
    report = as_document(recipe, wanted, outcome)
    if as_json:
        print(json.dumps(report, indent=2))
    for line in in_words(report):
        console.print(line)
    return int(not outcome.is_well)


async def _lead(recipe: Recipe, name: str, home: Path, wanted: Wanted, console: Console) -> Outcome:
    network = Network()
    needed = needs(recipe)
    console.print(f"starting the services in {home}")
    async with (
        local_cluster(
            home,
            wanted.num_rollouts,
            wanted.num_rewards,
            console.print,
            page="127.0.0.1:0",
            needs=needed,
            load=load_here(recipe),
            route=network.route,
            opening=network.opened,
        ) as cluster,
        AsyncRunClient(cluster.master_address, credentials=local_credentials()) as client,
    ):
        services = services_of(wanted, with_sandbox=needed.sandbox)
        deployment = Processes(cluster, network, services)
        faults = plan(wanted.seed, wanted.num_faults, deployment, wanted.kinds, wanted.targets, wanted.longest_s)
        campaign = Campaign(deployment, client, console.print, wanted.hung_s)
        return await cluster.run(campaign.lead(recipe, name, faults))


def services_of(wanted: Wanted, *, with_sandbox: bool) -> list[str]:
    """The names of a local cluster's services that faults may hit."""
    rollouts = [f"rollout-{number + 1}" for number in range(wanted.num_rollouts)]
    rewards = [f"reward-{number + 1}" for number in range(wanted.num_rewards)]
    return ["nats", "master", "trainer", *rollouts, *rewards, *(["sandbox"] if with_sandbox else [])]


def as_document(recipe: Recipe, wanted: Wanted, outcome: Outcome) -> dict[str, Any]:
    """A campaign as JSON."""
    times = sorted(each.recovered_s for each in outcome.inflicted if each.recovered_s and not each.was_ended)
    audits = [run.audit for run in outcome.runs]
    return {
        "recipe": recipe.name,
        "seed": wanted.seed,
        "is_well": outcome.is_well,
        "num_faults": len(outcome.inflicted),
        "num_samples": sum(found.num_samples for found in audits),
        "num_lost": sum(len(found.lost) + len(found.given_up) for found in audits),
        "num_twice": sum(len(found.twice) for found in audits),
        "num_too_old": sum(len(found.too_old) for found in audits),
        "num_hung": outcome.num_hung,
        "max_staleness": recipe.rollout.max_staleness,
        "staleness": max((found.staleness for found in audits), default=0.0),
        "recovery_s": {
            "p50": median(times) if times else None,
            "p95": times[math.ceil(0.95 * len(times)) - 1] if times else None,
            "max": times[-1] if times else None,
        },
        "faults": [asdict(each.fault) | _without(asdict(each), "fault") for each in outcome.inflicted],
        "runs": [asdict(run) for run in outcome.runs],
    }


def _without(values: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key != name}


def in_words(report: dict[str, Any]) -> list[str]:
    """A campaign's report, for a reader."""
    lines = []
    for run in report["runs"]:
        lines.append(f"{run['run_id']} is {run['state']}" + (f": {run['reason']}" if run["reason"] else ""))
        for finding in ("lost", "twice", "given_up", "too_old"):
            found = run["audit"][finding]
            lines += [f"  {finding.replace('_', ' ')}: {text}" for text in found[:SHOWN]]
            lines += [f"  … and {len(found) - SHOWN} more"] if len(found) > SHOWN else []
    recovery = report["recovery_s"]
    if recovery["p50"] is not None:
        lines.append("recovery: " + ", ".join(f"{key} {value:.1f} s" for key, value in recovery.items()))
    lines.append(
        f"{report['num_faults']} faults, {report['num_samples']:,} samples: {report['num_lost']} lost, "
        f"{report['num_twice']} twice, {report['num_too_old']} too old, {report['num_hung']} hung"
    )
    return lines
