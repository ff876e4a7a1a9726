"""Images for others: OpenAI's endpoint with a model that sees, the page's images, graders that look."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path
from typing import Any

import openai
import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from perilune.api.reward.v1.reward_pb2 import Image
from perilune.errors import InvalidInputError
from perilune.grading.judge_prompts import judge_prompt
from perilune.runtime.auth import Entry, Gate, digest_of
from perilune.runtime.blobs import Blobs
from perilune.runtime.service import Service
from services.master.web.images import image_route
from services.reward.graders import find_grader
from services.reward.graders.judge import showing
from services.rollout import standalone
from tests.unit.vision.families import llava, picture


def shown(data: bytes | str, text: str = "which two") -> list[Any]:
    url = data if isinstance(data, str) else f"data:image/png;base64,{base64.b64encode(data).decode()}"
    parts = [{"type": "text", "text": text}, {"type": "image_url", "image_url": {"url": url}}]
    return [{"role": "user", "content": parts}]


async def test_the_endpoint_takes_images_as_data_urls_alone(tmp_path: Path) -> None:
    llava(tmp_path).save(tmp_path)
    settings = standalone.StandaloneSettings(model=str(tmp_path), model_name="seeing", http_listen="127.0.0.1:0")
    service = Service("model", settings)
    running = asyncio.create_task(standalone.run(service))
    while not service.http_address:
        assert not running.done(), running.result()
        await asyncio.sleep(0.02)
    async with openai.AsyncOpenAI(base_url=f"{service.http_address}/v1", api_key="none", max_retries=0) as client:

        async def ask(messages: list[Any]) -> Any:
            return await client.chat.completions.create(
                model="seeing", messages=messages, max_tokens=6, logprobs=True, top_logprobs=2, temperature=0
            )

        one, other = await asyncio.gather(ask(shown(picture(0))), ask(shown(picture(1))))
        again = await ask(shown(picture(0)))
        for url, reason in (
            ("https://example.org/a.png", "this server fetches no URLs"),
            ("/etc/hostname", "reads no files"),
            ("data:image/png;base64,AAAA", "the image"),
        ):
            with pytest.raises(openai.BadRequestError, match=reason):
                await ask(shown(url))
        with pytest.raises(openai.BadRequestError, match="1 images, and as text 2 placeholders"):
            await ask(shown(picture(0), text="<image>"))
    service.stopping.set()
    await running
    await service.server.stop(0)
    assert one.usage.prompt_tokens == 1 + 2 + 4  # <bos>, the words, a slot for each patch
    first, second, third = (
        [token.model_extra["full_logprob"] for token in each.choices[0].logprobs.content]
        for each in (one, other, again)
    )
    assert third == pytest.approx(first, abs=1e-5) != second


async def test_the_page_gets_images_and_nothing_else(tmp_path: Path) -> None:
    blobs = Blobs(str(tmp_path))
    image, page = await blobs.put(picture(0)), await blobs.put(b"<script>alert(1)</script>")
    gate = Gate({"reader": Entry(roles=frozenset({"viewer"}), sha256=digest_of("token"))})
    for known, headers in ((None, {}), (gate, {"authorization": "Bearer token"})):
        client = TestClient(Starlette(routes=[image_route(blobs, known)]))
        answer = client.get(f"/images/{image}", headers=headers)
        assert (answer.status_code, answer.content) == (200, picture(0))
        assert answer.headers["content-type"] == "image/png"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["content-security-policy"] == "default-src 'none'; sandbox"
        for digest, status in ((page, 404), ("0" * 64, 404), ("..%2Fmessages", 404), ("A" * 64, 400)):
            assert client.get(f"/images/{digest}", headers=headers).status_code == status
    assert client.get(f"/images/{image}").status_code == 401


def test_a_judge_is_shown_images_where_it_is_told_so() -> None:
    judge = find_grader("judge")
    assert not judge.looks(judge.read_options({}))
    assert judge.looks(judge.read_options({"sees": "true"}))
    prompt = judge_prompt("How many?", "3", "3", "instructed", lambda _: 7)
    *_, last = showing(prompt, [Image(data=b"pixels", media_type="image/png")]).messages
    image, text = last["content"]
    assert image == {"type": "image_url", "image_url": {"url": "data:image/png;base64,cGl4ZWxz"}}
    assert text == {"type": "text", "text": prompt.messages[-1]["content"]}
    with pytest.raises(InvalidInputError, match="give its bytes as `data`"):
        showing(prompt, [Image(uri="https://example.org/a.png")])
