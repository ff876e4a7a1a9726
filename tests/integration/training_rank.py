"""One rank of a trainer, without a master: for each job it takes a run up and trains some iterations of it.

torchrun starts it, with a file of jobs. The first rank writes each iteration's metrics beside the checkpoints.
"""

from __future__ import annotations

import asyncio
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from perilune.api.trajectory.v1.trajectory_pb2 import PolicyVersion
from perilune.recipe import recipe_from_json
from services.trainer.learner import never
from services.trainer.ranks.group import END, Ranks
from services.trainer.session import Session
from services.trainer.versions.publisher import Publisher
from services.trainer.worker import follow
from tests.unit.trainer.messages import batch


@dataclass(frozen=True)
class Job:
    """Iterations of a run, from the newest version that its folder has; from -1 it begins."""

    recipe: str
    folder: str
    newest: int
    num_iterations: int

    def train(self, ranks: Ranks) -> list[dict[str, float]]:
        committed = PolicyVersion(number=self.newest) if self.newest >= 0 else None
        session = Session.open(recipe_from_json(self.recipe), Path(self.folder), committed, never, ranks=ranks)
        metrics = []
        for _ in range(self.num_iterations):
            session.train(batch(session.number, session.published.policy))
            session.checkpoint()
            metrics.append(session.metrics)
        return metrics


def main(jobs: Path) -> None:
    ranks = Ranks.of_environment()
    if not ranks.leads:
        asyncio.run(follow(ranks, Publisher(ranks.rank), ThreadPoolExecutor(1)))
        return
    for document in json.loads(jobs.read_text()):
        job = Job(**document)
        metrics = job.train(ranks)
        (Path(job.folder) / "metrics.json").write_text(json.dumps(metrics))
    ranks.order(END)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
