"""OpenRLHF: its executor of single turns asks `--reward.remote_url`."""

from __future__ import annotations

import asyncio
import json
import sys
from types import SimpleNamespace
from typing import Any

from openrlhf.utils.agent import SingleTurnAgentExecutor
from words import END, QUESTION, RIGHT, tokenizer

WORDS = tokenizer()
SAMPLING = SimpleNamespace(max_tokens=8, logprobs=None)


class Engine:
    """Always writes the same."""

    async def generate(self, *_: Any, **__: Any) -> Any:
        written = WORDS(f"{RIGHT} {END}")["input_ids"]
        return SimpleNamespace(outputs=[SimpleNamespace(token_ids=written, finish_reason="stop", logprobs=None)])


async def main(http: str, token: str) -> None:
    host = http.removeprefix("http://")
    executor = SingleTurnAgentExecutor([f"http://perilune:{token}@{host}/openrlhf?grader=math"])

    async def reward(answer: str) -> float | None:
        output = await executor.execute(QUESTION, answer, SAMPLING, 64, WORDS, Engine())
        return output["reward"] and output["reward"][0]  # of the one answer asked for

    right, wrong, unscored = [await reward(answer) for answer in ("2", "3", "")]
    print(json.dumps({"right": right, "wrong": wrong, "unscored": repr(unscored)}))


given = json.loads(sys.argv[1])
asyncio.run(main(given["http"], given["token"]))
