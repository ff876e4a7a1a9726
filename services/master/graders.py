"""Says what is wrong with a recipe's graders and environment, asked of those that know: the fleet, or what is
installed."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import Iterable, Mapping, Sequence

import grpc

from perilune.api.master.v1.master_pb2 import Worker
from perilune.api.reward.v1.reward_pb2 import ListGradersRequest
from perilune.api.reward.v1.reward_pb2_grpc import RewardServiceStub
from perilune.channel import open_channel
from perilune.recipe import Mistake, Recipe
from perilune.recipe.preflight import nearest

logger = logging.getLogger(__name__)

FLEET_PATIENCE_S = 3.0
INSTALLED_PATIENCE_S = 30.0

Known = Mapping[str, Sequence[str]]  # the options of each grader


async def grader_mistakes(recipe: Recipe, fleet: Iterable[Worker]) -> list[Mistake]:
    """Unknown graders and options, as a reward worker of the fleet knows them, with its plug-ins; and what the graders
    and environments that are installed beside the master say. What cannot be asked is no mistake.
    """
    installed, known = await asyncio.gather(_installed(recipe), _of_fleet(fleet))
    if known is None:
        return installed
    theirs = unknown_to(known, recipe)
    # A grader that is a plug-in of the fleet is none to what is installed here.
    names = {f"reward.graders.{index}" for index, table in enumerate(recipe.reward.graders) if table.name in known}
    return [*theirs, *(m for m in installed if not (m.key.endswith(".name") and m.key.removesuffix(".name") in names))]


def unknown_to(known: Known, recipe: Recipe) -> list[Mistake]:
    """Graders that are not among the known ones, and options that those do not have."""
    found = []
    for index, table in enumerate(recipe.reward.graders):
        key = f"reward.graders.{index}"
        if table.name not in known:
            hint = (
                "the reward services take plug-ins with PERILUNE_PLUGINS"
                if table.plugin
                else nearest(table.name, known)
            )
            found.append(Mistake(f"{key}.name", f"the fleet has no grader {table.name!r}; {hint}"))
            continue
        options = known[table.name]
        # A plug-in that was away when its service started has said nothing of its options.
        for option in table.options if options else ():
            if option not in options:
                text = f"{table.name} has no such option; {nearest(option, options)}"
                found.append(Mistake(f"{key}.options.{option}", text))
    return found


async def _of_fleet(fleet: Iterable[Worker]) -> Known | None:
    """The graders of the first reward worker that answers; None if none does."""
    for worker in fleet:
        if worker.kind != "reward":
            continue
        try:
            async with open_channel(worker.address) as channel:
                answer = await RewardServiceStub(channel).ListGraders(ListGradersRequest(), timeout=FLEET_PATIENCE_S)
        except grpc.aio.AioRpcError as error:
            logger.info("%s does not say which graders it has: %s", worker.id, error.details())
            continue
        return {grader.name: list(grader.options) for grader in answer.graders}
    return None


async def _installed(recipe: Recipe) -> list[Mistake]:
    """Returns what `perilune.recipe.preflight` finds in a process of its own: the master imports no other service."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "perilune.recipe.preflight"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(INSTALLED_PATIENCE_S):
            out, err = await process.communicate(recipe.model_dump_json().encode())
    except TimeoutError:
        process.kill()
        await process.wait()
        return []
    if process.returncode:
        logger.warning("graders and environments could not be checked: %s", err.decode(errors="replace")[-500:])
        return []
    return [Mistake(key, text) for key, text in json.loads(out)]
