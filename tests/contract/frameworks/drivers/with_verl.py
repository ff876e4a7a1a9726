"""verl: a worker of its reward loop, made from its own configuration, scores a DataProto."""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
import verl
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from verl import DataProto
from verl.experimental.reward_loop.reward_loop import RewardLoopWorker
from words import QUESTION, RIGHT, tokenizer

WORDS = tokenizer()


def configuration(address: str, model: str) -> DictConfig:
    function = "reward.custom_reward_function"
    overrides = [
        f"{function}.path=pkg://perilune.integrations.verl",
        f"{function}.name=compute_score",
        f"+{function}.reward_kwargs.graders=[{{name:math,weight:0.5}},{{name:exact,weight:0.5,options:{{marker:'answer:'}}}}]",
        f"+{function}.reward_kwargs.address={address}",
        f"actor_rollout_ref.model.path={model}",
    ]
    with initialize_config_dir(str(Path(verl.__file__).parent / "trainer" / "config"), version_base=None):
        return compose("ppo_trainer", overrides)


def batch(answers: list[str]) -> DataProto:
    prompt = torch.tensor([WORDS(QUESTION)["input_ids"]] * len(answers))
    response = torch.tensor([[*WORDS(RIGHT)["input_ids"], WORDS.eos_token_id, WORDS.pad_token_id]] * len(answers))
    mask = torch.cat([torch.ones_like(prompt), (response != WORDS.pad_token_id).long()], 1)
    rows = {
        "data_source": ["sums"] * len(answers),
        "reward_model": [{"style": "rule", "ground_truth": answer} for answer in answers],
        "extra_info": [{"question": QUESTION, "index": index} for index in range(len(answers))],
    }
    return DataProto.from_dict(
        tensors={"prompts": prompt, "responses": response, "attention_mask": mask},
        non_tensors={name: np.array(values, dtype=object) for name, values in rows.items()},
    )


async def main(address: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        WORDS.save_pretrained(folder)
        worker = RewardLoopWorker(configuration(address, folder))
    data = batch(["2", "3"])
    outputs = await worker.compute_score_batch(data)
    scores = [output["reward_score"] for output in outputs]
    assert [output["reward_extra_info"]["acc"] for output in outputs] == scores
    assert worker.reward_manager.assemble_rm_scores(data, scores).sum(1).tolist() == scores
    try:
        await worker.compute_score_batch(batch([""]))
    except Exception as error:  # noqa: BLE001  # whatever ends verl's run
        unscored = repr(error)
    else:
        unscored = ""
    print(json.dumps({"right": scores[0], "wrong": scores[1], "unscored": unscored}))


asyncio.run(main(json.loads(sys.argv[1])["address"]))
