"""The ablations: one command each, and one for all. A command that was stopped goes on where it was.

    python -m benchmarks.ablations                        # all: every run that is missing, then the page
    python -m benchmarks.ablations negative-gradients     # one
    python -m benchmarks.ablations --page                 # only docs/ablations.md and its pictures, of what is there
    python -m benchmarks.ablations --list

Runs lie in benchmarks/ablations/runs, one file each. Seeds come one after the other over all claims, so that what is
there after a while is a page with few seeds, not half a page.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import multiprocessing
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.ablations.claims import CLAIMS, Claim, Variant, find_claim
from benchmarks.ablations.page import write_page
from benchmarks.ablations.store import Store, run_id
from perilune.recipe import Recipe

HERE = Path(__file__).parent
REPOSITORY = HERE.parent.parent
DATA = "runs/ablations"  # prompt files and versions 0, which are made again where they are missing


@dataclass(frozen=True)
class Job:
    """One run that is wanted."""

    id: str
    recipe: Recipe
    bits: int | None
    label: str


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="ablations; all, if none is given")
    parser.add_argument("--seeds", type=int, help="at most so many seeds")
    parser.add_argument("--workers", type=int, default=1, help="runs at a time, each on one core")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="an override for every run")
    parser.add_argument("--minutes", type=float, help="begin no run after so many minutes")
    parser.add_argument("--runs", type=Path, default=HERE / "runs", help="where finished runs lie")
    parser.add_argument("--data", type=Path, default=REPOSITORY / DATA, help="for prompt files and versions 0")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "docs", help="where the page and its pictures go")
    parser.add_argument("--page", action="store_true", help="write the page from stored runs, and run nothing")
    parser.add_argument("--list", action="store_true", help="list the ablations and how many of their runs are there")
    given = parser.parse_args(arguments)
    store = Store(given.runs)
    claims = [find_claim(name) for name in given.names] or list(CLAIMS)
    wanted = jobs_of(claims, given.data, given.seeds, given.set)
    missing = [job for job in wanted if store.load(job.id) is None]
    if given.list:
        list_claims(claims, given.data, store)
        return
    if not given.page:
        print(f"{len(wanted) - len(missing)} of {len(wanted)} runs are there", flush=True)
        run_all(missing, given, time.monotonic() + 60 * (given.minutes or 1e9))
    write_page(CLAIMS, store, given.data, given.out, given.set)


def jobs_of(claims: Sequence[Claim], data: Path, num_seeds: int | None, overrides: Sequence[str] = ()) -> list[Job]:
    """Every run that the claims want, once each, seed by seed."""
    found: dict[str, Job] = {}
    for seed in range(max(claim.num_seeds for claim in claims)):
        for claim in claims:
            if seed in claim.seeds and (num_seeds is None or seed < num_seeds):
                for name, variant in claim.variants.items():
                    job = job_of(variant, seed, data, f"{claim.name}: {name}, seed {seed}", overrides)
                    found.setdefault(job.id, job)
    return list(found.values())


def job_of(variant: Variant, seed: int, data: Path, label: str, overrides: Sequence[str] = ()) -> Job:
    """A variant's run at a seed."""
    recipe = variant.recipe(seed, data, overrides)
    return Job(run_id(recipe, variant.bits), recipe, variant.bits, label)


def run_all(jobs: Sequence[Job], given: argparse.Namespace, until: float) -> None:
    """Runs jobs and stores them as they end; one that fails is stored as failed, and the others go on."""
    store, number = Store(given.runs), 0
    if given.workers == 1:
        for number, job in enumerate(jobs, start=1):
            if time.monotonic() > until:
                return
            keep(store, job, run_job(job, given.data), f"{number}/{len(jobs)}")
        return
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(given.workers, mp_context=context) as pool:
        waiting = {pool.submit(run_job, job, given.data): job for job in jobs}
        for done in concurrent.futures.as_completed(waiting):
            number += 1
            keep(store, waiting[done], done.result(), f"{number}/{len(jobs)}")
            if time.monotonic() > until:
                pool.shutdown(cancel_futures=True)
                return


def run_job(job: Job, data: Path) -> dict[str, object]:
    """One run in this process."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from benchmarks.ablations.curated import make_curated
    from benchmarks.ablations.loop import Loop
    from perilune.errors import PeriluneError

    try:
        make_curated(job.recipe, data / "versions")
        return Loop(job.recipe, data / "versions", job.bits).run()
    except PeriluneError as error:  # a run that diverges is a result
        return {"failed": str(error)}


def keep(store: Store, job: Job, document: dict[str, object], place: str) -> None:
    """Stores a run's document and says how it went."""
    store.save(job.id, {"label": job.label, **document})
    last = document["evaluations"][-1] if "evaluations" in document else {}  # type: ignore[index]
    ended = f"{last['accuracy']:.1%}, {document['cpu_seconds']} CPU s" if last else document["failed"]
    print(f"{place}  {job.label}: {ended}", flush=True)


def list_claims(claims: Sequence[Claim], data: Path, store: Store) -> None:
    """Prints each claim with how many of its runs are there."""
    for claim in claims:
        jobs = jobs_of([claim], data, None)
        there = sum(store.load(job.id) is not None for job in jobs)
        print(f"{claim.name:22} {there:3} of {len(jobs):3} runs   {claim.says}")


if __name__ == "__main__":
    main()
