"""AReaL: episodes of its RLVRWorkflow, whose wrapper sends the reward function to processes of its own."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from areal.api import ModelRequest, ModelResponse
from areal.api.cli_args import GenerationHyperparameters
from areal.workflow.rlvr import RLVRWorkflow
from words import END, QUESTION, RIGHT, tokenizer

from perilune.integrations.areal import RewardFunction

WORDS = tokenizer()
CHAT = [{"role": "user", "content": QUESTION}]


class Engine:
    """Always writes the same."""

    async def agenerate(self, request: ModelRequest) -> ModelResponse:
        written = WORDS(f"{RIGHT} {END}")["input_ids"]
        return ModelResponse(
            input_tokens=list(request.input_ids),
            output_tokens=written,
            output_logprobs=[0.0] * len(written),
            output_versions=[0] * len(written),
        )


async def main(address: str) -> None:
    graders = {"name": "exact", "options": {"marker": "answer:"}}
    workflow = RLVRWorkflow(RewardFunction(graders, address), GenerationHyperparameters(), WORDS)

    async def reward(answer: str) -> Any:
        episode = await workflow.arun_episode(Engine(), {"messages": CHAT, "answer": answer})
        return episode["rewards"].item()

    right, wrong = await reward("2"), await reward("3")
    failing = RLVRWorkflow(RewardFunction("math", address), GenerationHyperparameters(), WORDS)
    try:
        await failing.arun_episode(Engine(), {"messages": CHAT, "answer": ""})
    except Exception as error:  # noqa: BLE001  # whatever ends AReaL's episode
        unscored = repr(error)
    else:
        unscored = ""
    print(json.dumps({"right": right, "wrong": wrong, "unscored": unscored}))


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])["address"]))
