"""What harnesses ask of the endpoint: lists of prompts, a prompt's own log-probabilities, alternatives, tools."""

from __future__ import annotations

import json
from typing import Any

import httpx
import numpy as np
import openai
import pytest
import torch

from services.rollout.openai.fields import header, sort_out
from services.rollout.openai.request import CompletionRequest, read
from services.rollout.openai.tools import call_form
from tests.unit.rollout.served import MESSAGES, RUN, Run, serving
from tests.unit.rollout.tiny import EOS, WORDS, tiny_llama, tiny_tokenizer

IDS = [5, 9, 31, 40]
TEXT = "w1 w5 w27 w36"


def plain(tokens: list[int]) -> torch.Tensor:
    """log softmax(logits) of a plain forward pass: row p - 1 is of position p."""
    with torch.no_grad():
        return tiny_llama()(torch.tensor([tokens])).logits[0].log_softmax(-1)


async def test_a_list_of_prompts_is_answered_as_each_alone(client: openai.AsyncOpenAI) -> None:
    asked: dict[str, Any] = {"model": RUN, "max_tokens": 8, "seed": 3, "n": 2}
    whole = await client.completions.create(**asked, prompt=["w1 w5", "w7"])
    alone = [await client.completions.create(**asked, prompt=prompt) for prompt in ("w1 w5", [11])]
    assert [choice.index for choice in whole.choices] == [0, 1, 2, 3]
    assert [choice.text for choice in whole.choices] == [choice.text for each in alone for choice in each.choices]
    assert whole.usage is not None
    assert whole.usage.prompt_tokens == 3
    ids = await client.completions.create(**asked, prompt=[[5, 9], [11]])
    assert [choice.text for choice in ids.choices] == [choice.text for choice in whole.choices]
    pieces = [""] * 4
    async for chunk in await client.completions.create(**asked, prompt=["w1 w5", "w7"], stream=True):
        pieces[chunk.choices[0].index] += chunk.choices[0].text
    assert pieces == [choice.text for choice in whole.choices]


async def test_echo_scores_the_prompt_and_names_the_likeliest(client: openai.AsyncOpenAI) -> None:
    """As lm-evaluation-harness asks: one token is drawn and left out, all others must be those of the model."""
    answer = await client.completions.create(
        model=RUN, prompt=[IDS, IDS[:2]], echo=True, max_tokens=1, logprobs=2, temperature=0, seed=1
    )
    table = plain(IDS)
    choice, short = answer.choices
    assert choice.text.startswith(TEXT)
    assert choice.logprobs is not None
    columns = choice.logprobs
    assert columns.tokens is not None
    assert columns.tokens[:4] == TEXT.split()
    assert columns.token_logprobs is not None
    assert columns.token_logprobs[0] is None
    assert columns.token_logprobs[1:4] == pytest.approx([table[p - 1, IDS[p]].item() for p in (1, 2, 3)], abs=1e-4)
    assert columns.top_logprobs is not None
    assert columns.top_logprobs[0] is None
    for position in (1, 2, 3):
        best = {WORDS[token]: table[position - 1, token].item() for token in table[position - 1].topk(2).indices}
        own = {WORDS[IDS[position]]: table[position - 1, IDS[position]].item()}
        assert columns.top_logprobs[position] == pytest.approx(best | own, abs=1e-4)
    greedy = WORDS[int(table[3].argmax())]
    assert max(columns.top_logprobs[4], key=columns.top_logprobs[4].get) == greedy  # type: ignore[arg-type]
    assert columns.text_offset == [0, 2, 5, 9, len(TEXT)]
    assert short.logprobs is not None
    assert len(short.logprobs.tokens or []) == 3


async def test_a_prompt_can_be_scored_without_drawing(client: openai.AsyncOpenAI) -> None:
    answer = await client.completions.create(model=RUN, prompt=TEXT, echo=True, max_tokens=0, logprobs=0)
    (choice,) = answer.choices
    assert (choice.text, choice.finish_reason) == (TEXT, "length")
    assert choice.logprobs is not None
    assert choice.logprobs.top_logprobs is None
    assert choice.logprobs.token_logprobs is not None
    assert sum(choice.logprobs.token_logprobs[1:]) == pytest.approx(
        sum(plain(IDS)[p - 1, IDS[p]].item() for p in (1, 2, 3)), abs=1e-4
    )


async def test_alternatives_to_what_was_drawn(client: openai.AsyncOpenAI) -> None:
    chat = await client.chat.completions.create(
        model=RUN,
        messages=MESSAGES,
        max_tokens=6,
        seed=3,
        logprobs=True,
        top_logprobs=3,
        extra_body={"return_token_ids": True, "prompt_logprobs": 1},
    )
    (choice,) = chat.choices
    assert choice.model_extra is not None
    prompt, ids = choice.model_extra["prompt_token_ids"], choice.model_extra["token_ids"]
    table = plain(prompt + ids)
    assert choice.logprobs is not None
    assert choice.logprobs.content is not None
    for place, entry in enumerate(choice.logprobs.content, start=len(prompt)):
        top = table[place - 1].topk(3)
        assert [each.token for each in entry.top_logprobs] == [WORDS[token] for token in top.indices]
        assert [each.logprob for each in entry.top_logprobs] == pytest.approx(top.values.tolist(), abs=1e-4)
    assert chat.model_extra is not None
    first, second, _ = chat.model_extra["prompt_logprobs"]
    best = int(table[0].argmax())
    assert first is None
    assert second[str(best)] == {"logprob": pytest.approx(table[0, best].item(), abs=1e-4), "rank": 1} | {
        "decoded_token": WORDS[best]
    }
    assert second[str(prompt[1])]["rank"] == int((table[0] >= table[0, prompt[1]]).sum())


async def test_chosen_ids_are_scored_at_chosen_positions_in_one_call(client: openai.AsyncOpenAI) -> None:
    score = {"positions": [2, 4], "token_ids": [[7, 8], [9, 10]], "top": 1}
    answer = await client.completions.create(
        model=RUN, prompt=IDS, max_tokens=0, extra_body={"score": score, "service_tier": "flex"}
    )
    assert answer.choices[0].model_extra is not None
    scores, table = answer.choices[0].model_extra["scores"], plain(IDS)
    assert scores["version"] == 7
    assert scores["positions"] == [2, 4]
    assert np.allclose(scores["token_logprobs"], [table[1, [7, 8]].tolist(), table[3, [9, 10]].tolist()], atol=1e-4)
    assert scores["logprobs"] == [pytest.approx(table[1, IDS[2]].item(), abs=1e-4), None]
    assert scores["top_token_ids"] == [[int(table[1].argmax())], [int(table[3].argmax())]]
    everywhere = await client.completions.create(
        model=RUN, prompt=[IDS, IDS[:2]], max_tokens=0, extra_body={"score": {"token_ids": [7]}}
    )
    shapes = [np.shape(each.model_extra["scores"]["token_logprobs"]) for each in everywhere.choices if each.model_extra]
    assert shapes == [(3, 1), (1, 1)]


async def test_the_likeliest_of_several(client: openai.AsyncOpenAI) -> None:
    asked: dict[str, Any] = {"model": RUN, "prompt": ["w1", "w5"], "max_tokens": 5, "seed": 2, "logprobs": 0}
    drawn = (await client.completions.create(**asked, n=4)).choices
    best = await client.completions.create(**asked, n=1, best_of=4)

    def mean(choice: Any) -> float:
        return float(np.mean(choice.logprobs.full_logprobs))

    assert [choice.index for choice in best.choices] == [0, 1]
    assert [choice.text for choice in best.choices] == [max(drawn[:4], key=mean).text, max(drawn[4:], key=mean).text]
    assert best.usage is not None
    assert best.usage.completion_tokens == sum(len(choice.logprobs.tokens or []) for choice in drawn if choice.logprobs)


async def test_harmless_fields_are_ignored_and_named(client: openai.AsyncOpenAI) -> None:
    raw = await client.chat.completions.with_raw_response.create(
        model=RUN,
        messages=[{"role": "user", "content": [{"type": "text", "text": "w1 w5"}], "name": "ann"}],
        max_completion_tokens=3,
        user="ann",
        store=False,
        metadata={"a": "b"},
        presence_penalty=0,
        logit_bias={},
        response_format={"type": "text"},
        stream_options={"include_usage": True, "include_obfuscation": False},
        extra_body={"sällsam\r\nx-evil": 1, "seed": None},
    )
    ignored = raw.headers["x-perilune-ignored"].split(", ")
    assert set(ignored) == {"user", "store", "metadata", "stream_options.include_obfuscation"} | {
        "s%C3%A4llsam%0D%0Ax-evil"
    }
    assert raw.parse().choices[0].message.content is not None


@pytest.mark.parametrize(
    ("asked", "param", "message"),
    [
        ({"prompt": []}, "prompt", "not empty"),
        ({"prompt": ""}, "prompt", "is empty"),
        ({"prompt": ["w1", ""]}, "prompt.1", "is empty"),
        ({"prompt": [[5], [99]]}, "prompt.1", "token ids are 0 to 63"),
        ({"prompt": [[5], [-1]]}, "prompt.1", "token ids are 0 to 63"),
        ({"prompt": ["w1", 5]}, "prompt", "prompt 1 of the list is neither a text nor a list of token ids"),
        ({"prompt": [5] * 128}, "prompt", "has 128 tokens, and the model's context is 128"),
        ({"prompt": "w1", "logprobs": 21}, "logprobs", "less than or equal to 20"),
        ({"prompt": "w1", "best_of": 2, "n": 3}, None, "best_of is 2, and must be at least n, which is 3"),
        ({"prompt": "w1", "stream": True, "echo": True, "logprobs": 0}, None, "echo with logprobs comes with whole"),
        ({"prompt": ["w1"] * 100, "n": 128}, None, "at most 4096"),
        ({"prompt": "w1", "suffix": "w2"}, "suffix", "no engine here can do this"),
        ({"prompt": IDS, "score": {"positions": [5]}}, "score.positions", "must be 1 to 4"),
        ({"prompt": IDS, "score": {"positions": [2, 2]}}, "score.positions", "must ascend"),
        ({"prompt": IDS, "score": {"token_ids": [[1], [2]]}}, "score.token_ids", "has 2 lists for 3 positions"),
        ({"prompt": IDS, "score": {"token_ids": [99]}}, "score.token_ids", "ids are 0 to 63"),
        ({"prompt": IDS, "temperature": float("nan")}, "temperature", "temperature"),
        ({"prompt": IDS, "messages": MESSAGES}, "messages", "no engine here can do this"),
    ],
)
@pytest.mark.asyncio(loop_scope="module")
async def test_bad_requests_in_words(
    shared_client: openai.AsyncOpenAI, asked: dict[str, Any], param: str | None, message: str
) -> None:
    body = json.dumps({"model": RUN, "max_tokens": 1, **asked})
    answer = await httpx.AsyncClient().post(
        f"{shared_client.base_url}completions", content=body, headers={"content-type": "application/json"}
    )
    error = answer.json()["error"]
    assert (answer.status_code, error["type"], error["param"]) == (
        400,
        "invalid_request_error",
        param or error["param"],
    )
    assert message in error["message"]


async def test_what_is_no_request_is_answered_in_openais_form(client: openai.AsyncOpenAI) -> None:
    async with httpx.AsyncClient(base_url=str(client.base_url)) as http:
        for body in (b"[]", b"{", b'{"model": ' + b"[" * 100_000, b"\xff"):
            error = (await http.post("completions", content=body)).json()["error"]
            assert error["message"].startswith("the body is no JSON")
        missing = (await http.post("embeddings", json={})).json()["error"]
        assert missing["message"].startswith("there is no POST /v1/embeddings here")
        assert (await http.get("models/other")).status_code == 404
    assert (await client.models.retrieve(RUN)).id == RUN
    parts = [{"type": "image_url", "image_url": {"url": "data:,"}}]
    with pytest.raises(openai.BadRequestError, match="a part of the type 'image_url' cannot be read"):
        await client.chat.completions.create(model=RUN, messages=[{"role": "user", "content": parts}])  # type: ignore[list-item]


def test_a_prompt_as_long_as_the_context_can_be_scored() -> None:
    request, ignored = read(
        CompletionRequest, json.dumps({"model": "m", "prompt": [5] * 128, "max_tokens": 0}).encode()
    )
    assert (request.max_tokens, ignored) == (0, [])


def test_fields_are_sorted_out() -> None:
    assert sort_out({"a": 1, "b": None, "mood": 2, "min_p": 0}, {"a", "b"}) == ({"a": 1}, ["mood"])
    assert header([]) == {}
    assert len(header(["x" * 100] * 100)["x-perilune-ignored"]) < 2100


HERMES = (
    "{% if tools %}{% for tool in tools %}{{ ' ' + tool['function']['name'] }}{% endfor %}{% endif %}"
    "{% for message in messages %}{{ ' ' + message['role'] + ' ' }}{% if message['tool_calls'] %}"
    "{% for call in message['tool_calls'] %}<tool_call>\n"
    "{{ {'name': call['function']['name'], 'arguments': call['function']['arguments']} | tojson }}\n</tool_call>"
    "{% endfor %}{% else %}{{ message['content'] }}{% endif %}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}{{ ' assistant ' }}{% endif %}"
)
MISTRAL = HERMES.replace("<tool_call>\n", "[TOOL_CALLS] [").replace("\n</tool_call>", "]")
LLAMA = HERMES.replace("<tool_call>\n", "").replace("\n</tool_call>", "").replace("'arguments':", "'parameters':")
TOOLS = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]


class Said:
    """A tokenizer that says what a test wants, with a template of a known kind."""

    def __init__(self, template: str) -> None:
        self._real = tiny_tokenizer(template)
        self.text = ""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def decode(self, tokens: list[int], skip_special_tokens: bool) -> str:
        return self.text


@pytest.mark.parametrize(
    ("template", "opening", "text"),
    [
        (HERMES, "<tool_call>", 'I look.\n<tool_call>\n{"name": "look", "arguments": {"at": 1}}\n</tool_call>\n'
         '<tool_call>{"name": "look", "arguments": {"at": 2}}</tool_call><eos>'),
        (MISTRAL, "[TOOL_CALLS]", 'I look. [TOOL_CALLS] [{"name": "look", "arguments": {"at": 1}}, '
         '{"name": "look", "arguments": {"at": 2}}]<eos>'),
        (LLAMA, "", '{"name": "look", "parameters": {"at": 1}}; {"name": "look", "parameters": {"at": 2}}<eos>'),
    ],
)  # fmt: skip
def test_tool_calls_are_read_as_the_models_template_writes_them(template: str, opening: str, text: str) -> None:
    tokenizer = Said(template)
    form = call_form(tokenizer, TOOLS)
    assert form.opening == opening
    tokenizer.text = text
    said, calls = form.read(tokenizer, [])
    assert said == ("I look." if opening else "")
    assert [json.loads(call["function"]["arguments"]) for call in calls] == [{"at": 1}, {"at": 2}]
    assert {call["function"]["name"] for call in calls} == {"look"}
    for no_call in ("It is 3.", f'{opening}{{"name": 3}}', f"{opening}{{", '{"at": 1}'):
        tokenizer.text = no_call
        assert form.read(tokenizer, [])[1] == []


async def test_a_chat_offers_tools_by_the_template() -> None:
    run = Run()
    run.start(chat_template=HERMES)
    assert run.engine is not None
    async for client in serving(run):
        call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"at": 1}'}}
        history: list[Any] = [
            {"role": "user", "content": "w1"},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "content": "w2", "tool_call_id": "c1"},
        ]
        asked: dict[str, Any] = {"model": RUN, "messages": history, "max_tokens": 3, "seed": 1}
        offered = await client.chat.completions.create(**asked, tools=TOOLS, extra_body={"return_token_ids": True})
        without = await client.chat.completions.create(**asked, extra_body={"return_token_ids": True})
        assert offered.choices[0].model_extra is not None
        assert without.choices[0].model_extra is not None
        ids = offered.choices[0].model_extra["prompt_token_ids"]
        assert len(ids) == len(without.choices[0].model_extra["prompt_token_ids"]) + 1
        assert ids.count(EOS) == 3
        stream = await client.chat.completions.create(**asked, tools=TOOLS, stream=True)
        chunks = [chunk async for chunk in stream]
        assert chunks[-1].choices[0].delta.content == offered.choices[0].message.content
    run.engine.close()
