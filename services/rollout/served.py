"""Says what this process serves, to callers of its own ports: a run's policy, or a model of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from perilune.api.rollout.v1.rollout_pb2 import RunStatus
from perilune.api.trajectory.v1.trajectory_pb2 import PolicyVersion
from perilune.errors import NotFoundError, UnavailableError
from perilune.models.vision import VisionReader
from services.rollout.engines.base import Engine, Generated, SampleRequest, TokenScores, TokensToScore


class Served(Protocol):
    """A run, as its worker serves it; the engine and what belongs to it are None until the first version is there."""

    run_id: str

    @property
    def engine(self) -> Engine | None:
        """The engine that draws its samples."""

    @property
    def tokenizer(self) -> Any:
        """The policy's tokenizer."""

    @property
    def vision(self) -> VisionReader | None:
        """The reader of images; None of a model that reads text alone."""

    @property
    def policy(self) -> PolicyVersion | None:
        """The version that is served."""

    def status(self) -> RunStatus:
        """Returns how busy the engine is, and which version it serves."""

    async def generate(self, sample: SampleRequest) -> Generated:
        """Has the engine draw a sample."""


def find_served(runs: Sequence[Served], name: str) -> Served:
    """The model of that name; without a name the only one. NotFoundError if there is no such one here."""
    found = {run.run_id: run for run in runs}
    if not name and len(found) == 1:
        return runs[0]
    if name not in found:
        raise NotFoundError(f"there is no model {name!r} here; the runs that are served: {', '.join(found) or '-'}")
    return found[name]


def find_engine(runs: Sequence[Served], name: str) -> tuple[Served, Engine, PolicyVersion]:
    """NotFoundError for a model that is not served here; UnavailableError before its first version is."""
    served = find_served(runs, name)
    if served.engine is None or served.policy is None:
        raise UnavailableError(f"{name} has no weights yet; try again in a moment")
    return served, served.engine, served.policy


async def scored(engine: Engine, wanted: TokensToScore, policy: PolicyVersion) -> TokenScores:
    """Has an engine score given tokens. UnavailableError if it ends before; InvalidInputError if it cannot.

    `policy` stands in the result where there is no position.
    """
    if not len(wanted.positions):
        nothing, ids = np.zeros(0, np.float32), np.zeros((0, wanted.num_top), np.int32)
        return TokenScores(policy, nothing, np.zeros(0, np.int32), nothing[:, None], ids, ids.astype(np.float32))
    scores = asyncio.wrap_future(engine.score(wanted))
    broken: asyncio.Future[Any] = asyncio.wrap_future(engine.stopped)
    await asyncio.wait([scores, broken], return_when=asyncio.FIRST_COMPLETED)
    if not scores.done():
        raise UnavailableError("the engine ended; another takes over in a moment: try again")
    return scores.result()
