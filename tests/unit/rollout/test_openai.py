"""The OpenAI-compatible endpoint as outside programs meet it: the real client, over HTTP, to a real engine."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2
import numpy as np
import openai
import pytest
from tokenizers import Tokenizer

from services.rollout.stream_text import StreamText
from tests.unit.rollout.served import MESSAGES, PROMPT, RUN, Run, serving
from tests.unit.rollout.tiny import WORDS, recomputed, tiny_llama


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
        ({"presence_penalty": 0.5}, 400, "presence_penalty: no engine here can do this; leave it out, or send 0"),
        ({"logit_bias": {"5": 1}}, 400, "logit_bias: no engine here can do this"),
        ({"response_format": {"type": "json_object"}}, 400, "response_format.type: Input should be 'text'"),
        ({"top_logprobs": 3}, 400, "top_logprobs needs logprobs to be true"),
        ({"top_logprobs": 21, "logprobs": True}, 400, "top_logprobs: Input should be less than or equal to 20"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, 400, "tools: the model's chat template takes"),
        ({"tool_choice": "required"}, 400, "tool_choice"),
        ({"extra_body": {"temprature": 0.1}}, 400, "temprature: there is no such field; is temperature meant?"),
        ({"extra_body": {"min_p": 0.1}}, 400, "min_p: no engine here can do this; leave it out, or send 0"),
        ({"logprobs": True, "top_logprobs": 2, "stream": True}, 400, "top_logprobs comes with whole answers only"),
        ({"stop": [""]}, 400, "should have at least 1 character"),
        ({"messages": [{"role": "user", "content": "w1 " * 200}]}, 400, "has 201 tokens and leaves no room"),
    ],
)
@pytest.mark.asyncio(loop_scope="module")
async def test_what_cannot_be_done_is_said(
    shared_client: openai.AsyncOpenAI, asked: dict[str, Any], status: int, message: str
) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        await shared_client.chat.completions.create(**{"model": RUN, "messages": MESSAGES, **asked})
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


async def test_the_tokenizer_is_shown_whole(client: openai.AsyncOpenAI, run: Run) -> None:
    place = str(client.base_url).removesuffix("/v1/")
    async with httpx2.AsyncClient() as http:
        info = (await http.get(f"{place}/tokenizer_info")).json()
        whole = (await http.get(f"{place}/tokenizer.json", params={"model": RUN})).text
        unknown = await http.get(f"{place}/tokenizer_info", params={"model": "nope"})
    assert info["chat_template"] == run.tokenizer.chat_template
    assert info["eos_token"] == run.tokenizer.eos_token
    assert Tokenizer.from_str(whole).encode(WORDS[5]).ids == run.tokenizer(WORDS[5])["input_ids"]
    assert unknown.status_code == 404
