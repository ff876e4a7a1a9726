"""A run that serves a tiny model behind the OpenAI-compatible endpoint, and the real client of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import openai

from perilune.api.rollout.v1 import rollout_pb2
from perilune.api.rollout.v1.rollout_pb2 import GetStatusRequest, GetStatusResponse
from perilune.api.rollout.v1.rollout_pb2_grpc import RolloutServiceServicer
from perilune.api.trajectory.v1.trajectory_pb2 import PolicyVersion
from perilune.models.files import build_tokenizer
from perilune.models.vision import VisionReader
from perilune.runtime.http import serve_http
from perilune.runtime.service import Service
from services.rollout.config import RolloutSettings
from services.rollout.engines import make_engine
from services.rollout.engines.base import Engine, EngineSpec, Generated, SampleRequest
from services.rollout.openai.endpoint import Endpoint
from tests.unit.rollout.tiny import manifest_of, model_files, raw_tensors, tiny_llama, tiny_tokenizer

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
    vision: VisionReader | None = None
    results: dict[str, asyncio.Future[Generated]] = field(default_factory=dict)
    delivered: list[Generated] = field(default_factory=list)
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    def start(self, max_positions: int = 128, chat_template: str | None = None) -> None:
        model, loop = tiny_llama(max_position_embeddings=max_positions), asyncio.get_running_loop()
        tokenizer = tiny_tokenizer(chat_template) if chat_template else None
        files, tensors = model_files(model, tokenizer), raw_tensors(model)
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


async def serving(run: Run) -> AsyncIterator[openai.AsyncOpenAI]:
    service = Service("rollout", RolloutSettings(http_listen="127.0.0.1:0"))
    descriptor = rollout_pb2.DESCRIPTOR.services_by_name["RolloutService"]
    async with (
        serve_http(service, {descriptor: Status()}, Endpoint(lambda: [run], None).routes()),
        openai.AsyncOpenAI(base_url=f"{service.http_address}/v1", api_key="none", max_retries=0, timeout=60) as client,
    ):
        yield client
