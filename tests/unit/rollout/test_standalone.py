"""A model served with no run: OpenAI's API and RolloutService, from a folder in Hugging Face's layout."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import openai
import pytest
import torch

from perilune.api.rollout.v1.rollout_pb2 import GetStatusRequest, ScoreTokensRequest, TextToScore
from perilune.api.rollout.v1.rollout_pb2_grpc import RolloutServiceStub
from perilune.codec import pack, unpack
from perilune.errors import InvalidInputError, NotFoundError
from perilune.models.chat import vocabulary_digest
from perilune.runtime.service import Service, open_channel
from services.rollout import standalone
from services.rollout.servicer import read_texts
from tests.unit.rollout.tiny import tiny_llama, tiny_tokenizer

IDS = np.array([5, 9, 31, 40], dtype=np.int32)


async def until_ready(service: Service, running: asyncio.Task[None]) -> None:
    while not service.http_address:
        assert not running.done(), running.result()
        await asyncio.sleep(0.02)


async def test_a_folder_answers_both_ways(tmp_path: Path) -> None:
    tiny_llama().save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    settings = standalone.StandaloneSettings(model=str(tmp_path), model_name="tiny", http_listen="127.0.0.1:0")
    service = Service("model", settings)
    running = asyncio.create_task(standalone.run(service))
    await until_ready(service, running)
    async with openai.AsyncOpenAI(base_url=f"{service.http_address}/v1", api_key="none") as client:
        assert [model.id async for model in client.models.list()] == ["tiny"]
    async with open_channel(service.address) as channel:
        stub = RolloutServiceStub(channel)
        assert [run.engine for run in (await stub.GetStatus(GetStatusRequest())).runs] == ["torch"]
        chosen = np.array([7, 8, 9, 10], dtype=np.int32)
        text = TextToScore(
            tokens=pack(IDS), positions=pack(np.array([2, 4], dtype=np.int32)), chosen=pack(chosen), num_top=1
        )
        answer = await stub.ScoreTokens(ScoreTokensRequest(model="tiny", texts=[text, TextToScore(tokens=pack(IDS))]))
    service.stopping.set()
    await running
    await service.server.stop(0)
    with torch.no_grad():
        table = tiny_llama()(torch.from_numpy(IDS.astype(np.int64))[None]).logits[0].log_softmax(-1)
    first, second = answer.texts
    assert np.allclose(unpack(first.chosen), [*table[1, 7:9], *table[3, 9:11]], atol=1e-4)
    assert unpack(first.top_ids).tolist() == [int(table[1].argmax()), int(table[3].argmax())]
    assert np.allclose(unpack(first.logprobs), [table[1, 31], np.nan], atol=1e-4, equal_nan=True)
    assert len(unpack(second.logprobs)) == 3
    assert answer.vocabulary_digest == vocabulary_digest(tiny_tokenizer())


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (TextToScore(), r"texts\[0\]: has 0 tokens; the model reads 1 to 128"),
        (TextToScore(tokens=pack(np.full(129, 5, np.int32))), "has 129 tokens"),
        (TextToScore(tokens=pack(np.array([64], np.int32))), "tokens: ids are 0 to 63"),
        (TextToScore(tokens=pack(np.array([5.0], np.float32))), "tokens must be int32"),
        (TextToScore(tokens=pack(IDS), positions=pack(np.array([0], np.int32))), "positions must ascend, from 1 to 4"),
        (TextToScore(tokens=pack(IDS), positions=pack(np.array([3, 2], np.int32))), "positions must ascend"),
        (TextToScore(tokens=pack(IDS), chosen=pack(IDS)), "4 chosen ids are not as many for each of 3 positions"),
        (TextToScore(tokens=pack(IDS), num_top=65), "num_top is 65, and there are 64 ids"),
    ],
)
def test_what_cannot_be_scored_is_said(text: TextToScore, problem: str) -> None:
    with pytest.raises(InvalidInputError, match=problem):
        read_texts([text], 64, 128)


def test_more_than_an_answer_holds_is_refused() -> None:
    text = TextToScore(tokens=pack(np.full(128, 5, np.int32)), num_top=64)
    with pytest.raises(InvalidInputError, match="fit one answer"):
        read_texts([text] * 600, 64, 128)


def test_no_model_is_said(tmp_path: Path) -> None:
    for source in ("", str(tmp_path)):
        with pytest.raises(NotFoundError, match="holds no model"):
            standalone.read_model(source)
    with pytest.raises(NotFoundError, match="the package 'nowhere' is not installed"):
        standalone.read_model("package:nowhere")
