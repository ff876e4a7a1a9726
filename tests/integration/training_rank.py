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

import numpy as np

from perilune.api.master.v1.master_pb2 import ScoredGroup
from perilune.api.trajectory.v1.trajectory_pb2 import PolicyVersion
from perilune.codec import pack, unpack
from perilune.models.vision import VisionReader
from perilune.models.vision.probe import noise
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
            messages = batch(session.number, session.published.policy)
            vision = session._learner.policy.vision
            session.train(messages, show(messages[0], vision) if vision else {})
            session.checkpoint()
            metrics.append(session.metrics)
        return metrics


def show(group: ScoredGroup, vision: VisionReader) -> dict[str, bytes | str]:
    """Has a group's prompt show a picture: those of the others show none."""
    data = noise(24, 32)
    image = vision.see(data)
    for sample in (scored.trajectory for scored in group.samples):
        ids = np.array([1, *image.ids, *unpack(sample.prompt_tokens)], np.int32)
        sample.prompt_tokens.CopyFrom(pack(ids))
        sample.prompt.images.add(digest=image.digest)
        sample.processor = vision.version
    return {image.digest: data}


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
