"""One rank of a trainer, without a master: takes a run up and trains it for some iterations, with a checkpoint each.

torchrun starts it, with the recipe's file, the run's folder, the newest version in it (-1: none) and the number of
iterations. The first rank writes down the metrics of each.
"""

from __future__ import annotations

import asyncio
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from perilune.api.trajectory.v1.trajectory_pb2 import PolicyVersion
from perilune.recipe import Recipe, recipe_from_json
from services.trainer.learner import never
from services.trainer.publisher import Publisher
from services.trainer.ranks import END, Ranks
from services.trainer.session import Session
from services.trainer.worker import follow
from tests.unit.trainer.messages import batch


def train(recipe: Recipe, folder: Path, newest: int, num_iterations: int, ranks: Ranks) -> list[dict[str, float]]:
    committed = PolicyVersion(number=newest) if newest >= 0 else None
    session = Session.open(recipe, folder, committed, never, ranks=ranks)
    metrics = []
    for _ in range(num_iterations):
        session.train(batch(session.number, session.published.policy))
        session.checkpoint()
        metrics.append(session.metrics)
    return metrics


def main(recipe: str, folder: str, newest: str, num_iterations: str) -> None:
    ranks = Ranks.of_environment()
    if not ranks.leads:
        asyncio.run(follow(ranks, Publisher(ranks.rank), ThreadPoolExecutor(1)))
        return
    table = recipe_from_json(Path(recipe).read_text())
    metrics = train(table, Path(folder), int(newest), int(num_iterations), ranks)
    (Path(folder) / "metrics.json").write_text(json.dumps(metrics))
    ranks.order(END)


if __name__ == "__main__":
    main(*sys.argv[1:])
