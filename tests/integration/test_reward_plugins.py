"""Graders in processes of their own, asked by a real reward service."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from perilune.api.reward.v1.reward_pb2 import (
    SCORE_STATUS_GRADER_ERROR,
    SCORE_STATUS_OK,
    SCORE_STATUS_TIMEOUT,
    SCORE_STATUS_UNAVAILABLE,
    SCORE_STATUS_UNDECIDED,
    Score,
    ScoredAnswer,
)
from perilune.client import AsyncRewardClient, grader, score_request
from perilune.errors import InvalidInputError
from perilune.grading.plugin import Graded, start_grader
from services.reward.graders import GRADERS
from services.reward.graders.grader import GradingSample
from services.reward.plugins import plugged_in
from tests.conftest import free_port
from tests.integration.serving import reward_service


async def polite(question: str, response: str, word: str = "please") -> Graded:
    """1 if the response says please."""
    if question == "stuck":
        await asyncio.sleep(60)
    if question == "broken":
        raise ZeroDivisionError
    if question == "undecided":
        return None
    return float(word in response), {"looked_for": word}


async def ask(rewards: AsyncRewardClient, question: str, **options: str) -> Score:
    request = score_request("thank you, please", "", [grader("polite", 2.0, options), "exact"], question)
    return (await rewards.score_all([request], deadline_s=1.5 if question == "stuck" else 30))[0]


async def test_a_plug_in_grades_beside_our_own_and_may_come_and_go(tmp_path: Path) -> None:
    place = f"127.0.0.1:{free_port()}"
    plugin, _ = await start_grader(polite, "1", place)
    plugins = json.dumps({"polite": place})
    started = asyncio.to_thread(lambda: (manager := reward_service(tmp_path, plugins=plugins), manager.__enter__()))
    manager, service = await started
    try:
        async with AsyncRewardClient(service.address) as rewards:
            (info,) = [info for info in await rewards.graders() if info.name == "polite"]
            assert (info.version, info.description) == ("1", "1 if the response says please.")
            assert dict(info.options) == {"word": "(default: 'please')"}

            right = (await ask(rewards, "q")).components[0]
            assert (right.status, right.value, right.weight, right.version) == (SCORE_STATUS_OK, 1.0, 2.0, "1")
            assert dict(right.evidence) == {"looked_for": "please"}
            assert (await ask(rewards, "q", word="sorry")).components[0].value == 0.0
            for question, status in (
                ("undecided", SCORE_STATUS_UNDECIDED),
                ("broken", SCORE_STATUS_GRADER_ERROR),
                ("stuck", SCORE_STATUS_TIMEOUT),
            ):
                score = await ask(rewards, question)
                assert (score.status, score.HasField("value")) == (status, False)
                assert score.components[1].status == SCORE_STATUS_OK
            wrong = (await ask(rewards, "q", words="x")).components[0]
            assert wrong.status == SCORE_STATUS_GRADER_ERROR
            assert "unexpected keyword argument 'words'" in wrong.evidence["error"]

            await plugin.stop(None)
            away = await rewards.score("please", "", ["polite"])
            assert (away.status, away.HasField("value")) == (SCORE_STATUS_UNAVAILABLE, False)
            waiting = asyncio.create_task(ask(rewards, "q"))  # the client asks again until the deadline
            await asyncio.sleep(0.5)
            plugin, _ = await start_grader(polite, "2", place)
            back = await waiting
            assert (back.status, back.components[0].version) == (SCORE_STATUS_OK, "2")

            answer = ScoredAnswer(request=score_request("please", "", ["polite"]), score=Score(components=[right]))
            (again,) = [each async for each in rewards.rescore([answer])]
            assert again.after.components[0].version == "2"  # it was graded by 1
    finally:
        manager.__exit__(None, None, None)
        await plugin.stop(None)


async def test_a_plug_in_that_is_away_at_the_start_is_taken_up_all_the_same() -> None:
    async with plugged_in({"later": f"127.0.0.1:{free_port()}"}):
        assert "away" in GRADERS["later"].info().description
    assert "later" not in GRADERS


@pytest.mark.parametrize("place", ["nonsense", "", "host:99999", "http://127.0.0.1:7100"])
async def test_what_is_no_address_is_named_with_its_setting(place: str) -> None:
    with pytest.raises(InvalidInputError, match=r"PERILUNE_PLUGINS: 'polite'.*give HOST:PORT"):
        async with plugged_in({"polite": place}):
            pass


async def test_a_name_is_taken_once() -> None:
    with pytest.raises(InvalidInputError, match="there is a grader 'exact' already"):
        async with plugged_in({"exact": "127.0.0.1:9"}):
            pass


async def test_functions_that_are_no_coroutines_run_in_threads() -> None:
    def length(response: str) -> float:
        return float(len(response))

    server, address = await start_grader(length, "1")
    async with plugged_in({"long": address}):
        options = GRADERS["long"].read_options({})
        ask_it = GRADERS["long"].ask
        assert ask_it is not None
        verdict = await ask_it(GradingSample("", "", "four"), options)
        assert (verdict.value, verdict.version) == (4.0, "1")
    await server.stop(None)
