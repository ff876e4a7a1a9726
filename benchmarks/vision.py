"""Pictures: does a policy learn to look, does it really look, and does what is read off pictures come near to text?

    python -m benchmarks.vision [--seeds 0 1 2] [--only vision rendered] [--set KEY=VALUE …] [--json FILE]

`recipes/vision.toml` runs through all real services for each seed. The trained policy is then asked the same 500
problems once more with noise in place of the pictures: what it still gets right, it guesses. The peer of "after" is
"before": the same model before reinforcement learning. What crosses the bus is counted by a relay in front of it, and
its peer is what the pictures of the run would weigh if each message carried its own.

`recipes/rendered.toml` learns on text and on pictures of text together. Version 0 and the last one are asked 500
held-out problems as text and as pictures; the gap is the difference of the two accuracies.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.report import Figure, report
from perilune.api.master.v1.master_pb2 import RUN_STATE_FINISHED, Run
from perilune.chaos.network import Network
from perilune.cli.training import evaluation_recipe
from perilune.client import AsyncRunClient
from perilune.local.cluster import local_cluster
from perilune.recipe import Recipe, check_recipe, load_recipe

REPOSITORY = Path(__file__).parent.parent
MODE = "sampled"


@dataclass(frozen=True)
class Trained:
    """A finished run, the seconds from its submission to its end, and the bytes that its services sent over the bus."""

    run: Run
    seconds: float
    bus_bytes: int
    home: Path

    @property
    def accuracies(self) -> tuple[float, float]:
        """Accuracies of the first evaluated version and of the last."""
        found = [each.accuracy for each in self.run.evaluations if each.mode == MODE]
        return found[0], found[-1]

    def checkpoint(self, version: int) -> str:
        return str(self.home / self.run.id / "checkpoints" / f"v{version:06}")

    @property
    def picture_bytes(self) -> list[int]:
        """The size of each picture that the run's prompts show."""
        return [file.stat().st_size for file in self.home.glob("blobs/content/*")]


async def finish(client: AsyncRunClient, recipe: Recipe) -> Run:
    """Submits a run and waits for its end."""
    run = await client.submit(recipe)
    async for answer in client.watch(run.id):
        run = answer.run
    if run.state != RUN_STATE_FINISHED:
        raise SystemExit(f"the run {run.id} failed: {run.reason}")
    return run


async def accuracy_of(client: AsyncRunClient, recipe: Recipe, model: str, **prompts: Any) -> float:
    """The sampled accuracy of a model on a recipe's held-out problems, with other keys of its prompts."""
    document = evaluation_recipe(recipe, model).model_dump(mode="json", exclude_none=True)
    document["prompts"] = {key: value for key, value in (document["prompts"] | prompts).items() if value is not None}
    run = await finish(client, check_recipe(document, recipe.name))
    return next(each.accuracy for each in run.evaluations if each.mode == MODE)


# --- Looking ------------------------------------------------------------------------------------------------------


async def learn_to_look(recipe: Recipe, home: Path) -> tuple[Trained, float]:
    """A run of the vision recipe, and the accuracy of its last version on noise."""
    network = Network()
    async with (
        local_cluster(home, route=network.route, opening=network.opened) as cluster,
        AsyncRunClient(cluster.master_address) as client,
    ):
        started = time.monotonic()
        run = await finish(client, recipe)
        seconds = time.monotonic() - started
        sent = sum(link.num_bytes for name, link in network.links.items() if name.endswith(">nats"))
        trained = Trained(run, seconds, sent, home)
        return trained, await accuracy_of(client, recipe, trained.checkpoint(run.num_iterations), noise=1.0)


def figures_of_looking(name: str, trained: Trained, blind: float) -> dict[str, Figure]:
    before, after = trained.accuracies
    pictures = trained.picture_bytes
    num_samples = trained.run.ledger.dispatched
    carried = num_samples * sum(pictures) / max(1, len(pictures))
    return {
        f"{name}: sampled accuracy after RL": Figure(after, "share", before),
        f"{name}: with noise in place of pictures": Figure(blind, "share"),
        f"{name}: from submission to end, warm-up and evaluations too": Figure(trained.seconds, "s"),
        f"{name}: ledger balanced": Figure(float(trained.run.ledger.balanced), "1 = yes"),
        f"{name}: over the bus": Figure(trained.bus_bytes / num_samples, "bytes a sample", carried / num_samples),
        f"{name}: pictures in the blob store": Figure(sum(pictures), "bytes"),
    }


# --- Reading ------------------------------------------------------------------------------------------------------


async def learn_to_read(recipe: Recipe, home: Path) -> tuple[Run, dict[tuple[int, str], float]]:
    """A run of the rendered recipe, and accuracies by version and form."""
    assert recipe.prompts.render
    picture = recipe.prompts.render.model_dump(mode="json", exclude_none=True) | {"share": 1.0, "compare": False}
    forms = {"text": None, "picture": picture}
    async with local_cluster(home) as cluster, AsyncRunClient(cluster.master_address) as client:
        run = await finish(client, recipe)
        found = {}
        for version in (0, run.num_iterations):
            model = str(home / run.id / "checkpoints" / f"v{version:06}")
            for form, render in forms.items():
                found[version, form] = await accuracy_of(client, recipe, model, render=render)
        return run, found


def figures_of_reading(name: str, run: Run, found: dict[tuple[int, str], float]) -> dict[str, Figure]:
    figures = {
        f"{name}: {form} after RL": Figure(found[run.num_iterations, form], "share", found[0, form])
        for form in ("text", "picture")
    }
    gaps = [found[version, "text"] - found[version, "picture"] for version in (0, run.num_iterations)]
    figures[f"{name}: gap between text and picture"] = Figure(gaps[1], "share", gaps[0])
    figures[f"{name}: ledger balanced"] = Figure(float(run.ledger.balanced), "1 = yes")
    return figures


def measured(which: str, seed: int, overrides: Sequence[str], home: Path) -> dict[str, Figure]:
    """The figures of one recipe with one seed."""
    recipe = load_recipe(REPOSITORY / "recipes" / f"{which}.toml", [f"seed={seed}", *overrides])
    if which == "vision":
        return figures_of_looking(f"seed {seed}", *asyncio.run(learn_to_look(recipe, home)))
    return figures_of_reading(f"seed {seed}", *asyncio.run(learn_to_read(recipe, home)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", choices=["vision", "rendered"], default=["vision", "rendered"])
    parser.add_argument("--set", dest="overrides", action="append", default=[], help="a key of both recipes")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    figures: dict[str, Figure] = {}
    with tempfile.TemporaryDirectory(prefix="perilune-vision-") as folder:
        for which in arguments.only:
            for seed in arguments.seeds:
                found = measured(which, seed, arguments.overrides, Path(folder) / f"{which}-{seed}")
                figures |= {f"{which}, {name}": figure for name, figure in found.items()}
                report(f"Images, {which}, seed {seed}", figures)
    report("Images", figures, arguments.json)


if __name__ == "__main__":
    main()
