"""The OpenAI-compatible endpoint as outside programs meet it: the real client, over HTTP, to a real engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import openai
import pytest
import pytest_asyncio

from perilune.api.rollout.v1 import rollout_pb2
from perilune.api.rollout.v1.rollout_pb2 import GetStatusRequest, GetStatusResponse
from perilune.api.rollout.v1.rollout_pb2_grpc import RolloutServiceServicer
from perilune.api.trajectory.v1.trajectory_pb2 import PolicyVersion
from perilune.models.files import build_tokenizer
from perilune.runtime.http import serve_http
from perilune.runtime.service import Service
from services.rollout.config import RolloutSettings
from services.rollout.engines import make_engine
from services.rollout.engines.base import Engine, EngineSpec, Generated, SampleRequest
from services.rollout.openai.endpoint import Endpoint
from services.rollout.stream_text import StreamText
from tests.unit.rollout.tiny import WORDS, manifest_of, model_files, raw_tensors, recomputed, tiny_llama

RUN = "run1"
MESSAGES = [{"role": "user", "content": "w1 w5"}]
PROMPT = [1, 5, 9]  # <bos> w1 w5


@dataclass
class Run:
    """A run with an engine, as a worker has it."""

    run_id: str = RUN
    engine: Engine | None = None
    tokenizer: Any = None
    policy: PolicyVersion | None = None
    results: dict[str, asyncio.Future[Generated]] = field(default_factory=dict)
    delivered: list[Generated] = field(default_factory=list)
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    def start(self, max_positions: int = 128) -> None:
        model, loop = tiny_llama(max_position_embeddings=max_positions), asyncio.get_running_loop()
        files, tensors = model_files(model), raw_tensors(model)
        self.policy, self.tokenizer = manifest_of(7, tensors).version, build_tokenizer(files)

        def deliver(batch: Any) -> None:
            loop.call_soon_threadsafe(self._take, batch)

        self.engine = make_engine(
            EngineSpec(files, self.policy, tensors, deliver, max_running=8, kv_cache_bytes=1 << 26)
        )

    def _take(self, batch: list[Generated]) -> None:
        for generated in batch:
            self.delivered.append(generated)
            result = self.results.pop(generated.sample.id)
            if not result.done():
                result.set_result(generated)

    async def generate(self, sample: SampleRequest) -> Generated:
        assert self.engine is not None
        self.results[sample.id] = asyncio.get_running_loop().create_future()
        self.engine.submit([sample])
        return await self.results[sample.id]


class Status(RolloutServiceServicer):
    async def GetStatus(self, request: GetStatusRequest, context: Any) -> GetStatusResponse:
        return GetStatusResponse()


@pytest_asyncio.fixture
async def run() -> AsyncIterator[Run]:
    run = Run()
    run.start()
    yield run
    assert run.engine is not None
    run.engine.close()


@pytest_asyncio.fixture
async def client(run: Run) -> AsyncIterator[openai.AsyncOpenAI]:
    async for client in serving(run):
        yield client


async def serving(run: Run) -> AsyncIterator[openai.AsyncOpenAI]:
    service = Service("rollout", RolloutSettings(http_listen="127.0.0.1:0"))
    descriptor = rollout_pb2.DESCRIPTOR.services_by_name["RolloutService"]
    async with (
        serve_http(service, {descriptor: Status()}, Endpoint(lambda: [run], None).routes()),
        openai.AsyncOpenAI(base_url=f"{service.http_address}/v1", api_key="none", max_retries=0, timeout=60) as client,
    ):
        yield client


async def test_models_are_the_runs_with_their_versions(client: openai.AsyncOpenAI, run: Run) -> None:
    models = [model async for model in client.models.list()]
    assert [model.id for model in models] == [RUN]
    assert run.policy is not None
    assert models[0].model_extra == {"perilune": {"version": 7, "digest": run.policy.digest}}


async def test_a_chat_is_what_the_policy_says_with_its_tokens_and_logprobs(
    client: openai.AsyncOpenAI, run: Run
) -> None:
    answer = await client.chat.completions.create(
        model=RUN,
        messages=MESSAGES,
        max_tokens=20,
        temperature=0.8,
        seed=3,
        n=2,
        logprobs=True,
        extra_body={"return_token_ids": True},
    )
    assert run.policy is not None
    assert answer.system_fingerprint == f"v7-{run.policy.digest}"
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == len(PROMPT)
    generated = {each.sample.index: each for each in run.delivered}
    assert answer.usage.completion_tokens == sum(len(span.tokens) for each in generated.values() for span in each.spans)
    assert answer.choices[0].message.content != answer.choices[1].message.content
    for choice in answer.choices:
        extra, span = choice.model_extra, generated[choice.index].spans[0]
        assert extra is not None
        assert extra["prompt_token_ids"] == PROMPT
        assert extra["token_ids"] == span.tokens.tolist()
        assert choice.message.content == run.tokenizer.decode(span.tokens.tolist(), skip_special_tokens=True)
        segment = {"version": 7, "digest": run.policy.digest, "num_tokens": len(span.tokens)}
        assert extra["perilune"] == {"segments": [segment]}
        assert choice.logprobs is not None
        assert choice.logprobs.content is not None
        assert [each.logprob for each in choice.logprobs.content] == pytest.approx(span.logprobs.tolist())
        full = [each.model_extra["full_logprob"] for each in choice.logprobs.content if each.model_extra]
        assert np.abs(recomputed(tiny_llama(), generated[choice.index]) - full).max() < 1e-4


async def test_a_stream_adds_up_to_the_whole_answer(client: openai.AsyncOpenAI) -> None:
    asked: dict[str, Any] = {"model": RUN, "messages": MESSAGES, "max_tokens": 30, "seed": 5}
    whole = await client.chat.completions.create(**asked, n=2, extra_body={"return_token_ids": True})
    stream = await client.chat.completions.create(
        **asked,
        n=2,
        stream=True,
        stream_options={"include_usage": True},
        logprobs=True,
        extra_body={"return_token_ids": True},
    )
    text, ids, ends, chunks = ["", ""], [[], []], {}, []
    async for chunk in stream:
        chunks.append(chunk)
        for choice in chunk.choices:
            text[choice.index] += choice.delta.content or ""
            ids[choice.index] += choice.model_extra["token_ids"]
            if choice.finish_reason:
                ends[choice.index] = (choice.finish_reason, choice.model_extra["perilune"])
    assert text == [choice.message.content for choice in whole.choices]
    assert ids == [choice.model_extra["token_ids"] for choice in whole.choices if choice.model_extra]
    assert ends == {c.index: (c.finish_reason, c.model_extra["perilune"]) for c in whole.choices if c.model_extra}
    assert len(chunks) > 20
    assert chunks[-1].usage == whole.usage


async def test_a_completion_goes_on_from_token_ids(client: openai.AsyncOpenAI) -> None:
    whole = await client.completions.create(
        model=RUN, prompt="w1 w5", max_tokens=12, temperature=0, logprobs=0, extra_body={"return_token_ids": True}
    )
    extra = whole.choices[0].model_extra
    assert extra is not None
    ids, prompt = extra["token_ids"], extra["prompt_token_ids"]
    assert whole.choices[0].logprobs is not None
    assert whole.choices[0].logprobs.tokens == [WORDS[token] for token in ids]
    assert whole.choices[0].logprobs.token_logprobs == [0.0] * len(ids)
    half = len(ids) // 2
    rest = await client.completions.create(
        model=RUN,
        prompt=prompt + ids[:half],
        max_tokens=12 - half,
        temperature=0,
        extra_body={"return_token_ids": True},
    )
    assert rest.choices[0].model_extra is not None
    assert rest.choices[0].model_extra["token_ids"] == ids[half:]


async def test_a_stop_text_is_not_shown_and_its_tokens_are(client: openai.AsyncOpenAI, run: Run) -> None:
    asked: dict[str, Any] = {"model": RUN, "prompt": [5, 9], "max_tokens": 30, "seed": 5}
    free = (await client.completions.create(**asked)).choices[0].text.split()
    assert len(free) > 6
    stop = " ".join(free[3:5])
    stopped = await client.completions.create(**asked, stop=[stop], extra_body={"return_token_ids": True})
    choice = stopped.choices[0]
    assert choice.finish_reason == "stop"
    assert choice.text.split() == " ".join(free).partition(stop)[0].split()
    assert choice.model_extra is not None
    assert run.tokenizer.decode(choice.model_extra["token_ids"]).endswith(stop)
    pieces = [piece async for piece in await client.completions.create(**asked, stop=[stop], stream=True)]
    assert "".join(piece.choices[0].text for piece in pieces) == choice.text


async def test_who_leaves_frees_the_place() -> None:
    run = Run()
    run.start(max_positions=100_000)
    assert run.engine is not None
    async for client in serving(run):
        stream = await client.completions.create(model=RUN, prompt="w1", max_tokens=90_000, stream=True, seed=1, n=4)
        async for _ in stream:
            break
        await stream.close()
        with pytest.raises(openai.APITimeoutError):
            await client.completions.create(model=RUN, prompt="w1", max_tokens=90_000, seed=1, n=16, timeout=0.05)
        async with asyncio.timeout(60):
            while run.engine.capacity().num_running or run.engine.capacity().num_waiting:
                await asyncio.sleep(0.05)
    run.engine.close()


@pytest.mark.parametrize(
    ("asked", "status", "message"),
    [
        ({"model": "other"}, 404, "there is no model 'other' here; the runs that are served: run1"),
        ({"presence_penalty": 0.5}, 400, "presence_penalty: Input should be less than or equal to 0"),
        ({"logit_bias": {"5": 1}}, 400, "logit_bias: Extra inputs are not permitted"),
        ({"top_logprobs": 3}, 400, "top_logprobs"),
        ({"stop": [""]}, 400, "should have at least 1 character"),
        ({"messages": [{"role": "user", "content": "w1 " * 200}]}, 400, "has 201 tokens and leaves no room"),
    ],
)
async def test_what_cannot_be_done_is_said(
    client: openai.AsyncOpenAI, asked: dict[str, Any], status: int, message: str
) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        await client.chat.completions.create(**{"model": RUN, "messages": MESSAGES, **asked})
    assert caught.value.status_code == status
    assert message in str(caught.value)


async def test_a_run_without_weights_is_not_yet_there() -> None:
    async for client in serving(Run()):
        with pytest.raises(openai.InternalServerError, match="run1 has no weights yet"):
            await client.chat.completions.create(model=RUN, messages=MESSAGES)


class Bytes:
    """A tokenizer whose tokens are the bytes of UTF-8."""

    def decode(self, tokens: list[int], skip_special_tokens: bool) -> str:
        return bytes(tokens).decode(errors="replace")


def test_text_is_given_out_when_it_is_certain() -> None:
    text = StreamText(Bytes(), stops=("END", "—|"))
    pieces = [text.add([octet]) for octet in "añ— E".encode()]
    # A character when all its bytes are there, and two characters later: they might have begun a stop text.
    assert pieces == ["", "", "", "", "", "a", "ñ", "—"]
    assert text.add(list(b"ND more")) == " "
    assert text.end() == ""
    assert StreamText(Bytes(), ()).add("aé".encode()) == "aé"
