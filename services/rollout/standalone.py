"""`python -m services.rollout.standalone`: a model behind the OpenAI-compatible endpoint and RolloutService.

There is no run, no master and no bus. PERILUNE_MODEL names the model: a judge's, a teacher's, a checkpoint to evaluate.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import PositiveInt
from safetensors import SafetensorError, safe_open

from perilune.api.rollout.v1 import rollout_pb2
from perilune.api.rollout.v1.rollout_pb2 import RunStatus
from perilune.api.rollout.v1.rollout_pb2_grpc import add_RolloutServiceServicer_to_server
from perilune.api.trajectory.v1.trajectory_pb2 import PolicyVersion
from perilune.errors import NotFoundError
from perilune.models.files import build_tokenizer, read_config
from perilune.models.sources import load_raw
from perilune.models.tensors import raw_tensor
from perilune.models.vision import VisionReader, read_processor
from perilune.models.vision.reader import PROCESSOR_FILES
from perilune.recipe import EngineTable, TorchEngineTable
from perilune.runtime.http import serve_http
from perilune.runtime.service import Service, main, until_stopping
from perilune.weights import RawTensor, manifest_of
from services.rollout.config import RolloutSettings
from services.rollout.engines import make_engine
from services.rollout.engines.base import Engine, EngineSpec, Generated, SampleRequest
from services.rollout.openai.endpoint import Endpoint
from services.rollout.servicer import RolloutServicer

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"


class StandaloneSettings(RolloutSettings):
    """Settings of a model's own endpoint, from PERILUNE_ variables."""

    http_listen: str | None = "127.0.0.1:8000"
    model: str = ""  # a folder, a Hugging Face id, or package:NAME
    model_name: str = ""  # what callers ask for; the folder's name if not given
    engine: EngineTable = TorchEngineTable()  # its type, or as JSON a table with its keys
    max_running: PositiveInt = 64  # replies written at once


async def run(service: Service) -> None:
    """Answers until the service stops. NotFoundError: there is no such model."""
    settings = service.settings
    assert isinstance(settings, StandaloneSettings)
    torch.set_num_threads(settings.num_threads)
    model = await asyncio.to_thread(StandingModel, settings, asyncio.get_running_loop())
    try:
        descriptor = rollout_pb2.DESCRIPTOR.services_by_name["RolloutService"]
        servicer = RolloutServicer(service.id, lambda: [model])
        add_RolloutServiceServicer_to_server(servicer, service.server)
        await service.listen([descriptor])
        async with serve_http(service, {descriptor: servicer}, Endpoint(lambda: [model], service.gate).routes()):
            await service.ready()
            await until_stopping(service, asyncio.wrap_future(model.engine.stopped))
    finally:
        await asyncio.to_thread(model.engine.close)


class StandingModel:
    """One version that never changes, in an engine (`services.rollout.openai.Served`)."""

    def __init__(self, settings: StandaloneSettings, loop: asyncio.AbstractEventLoop) -> None:
        files, tensors = read_model(settings.model)
        self._engine_type = settings.engine.type
        self.run_id = settings.model_name or Path(settings.model).resolve().name
        self.policy: PolicyVersion | None = manifest_of(0, tensors).version
        self.tokenizer: Any = build_tokenizer(files)
        self.vision: VisionReader | None = read_processor(files, read_config(files), self.tokenizer)
        self._loop = loop
        self._results: dict[str, asyncio.Future[Generated]] = {}
        self.engine: Engine = make_engine(
            EngineSpec(
                model_files=files,
                policy=self.policy,
                tensors=tensors,
                deliver=self._deliver,
                max_running=settings.max_running,
                kv_cache_bytes=settings.kv_cache_bytes,
                options=settings.engine,
                device=settings.device,
            )
        )

    def status(self) -> RunStatus:
        """Returns how busy the engine is."""
        capacity = self.engine.capacity()
        return RunStatus(
            run_id=self.run_id,
            engine=self._engine_type,
            policy=self.policy,
            num_running=capacity.num_running,
            num_waiting=capacity.num_waiting,
            max_running=capacity.max_running,
            num_generated_tokens=capacity.num_generated_tokens,
            busy_seconds=capacity.busy_s,
        )

    async def generate(self, sample: SampleRequest) -> Generated:
        """Has a sample drawn by the engine."""
        self._results[sample.id] = asyncio.get_running_loop().create_future()
        self.engine.submit([sample])
        return await self._results[sample.id]

    def _deliver(self, batch: Sequence[Generated]) -> None:
        self._loop.call_soon_threadsafe(self._take, batch)

    def _take(self, batch: Sequence[Generated]) -> None:
        for generated in batch:
            result = self._results.pop(generated.sample.id)
            if not result.done():  # else its caller has gone
                result.set_result(generated)


def read_model(source: str) -> tuple[dict[str, bytes], list[RawTensor]]:
    """The small files and the tensors of a model: of a folder as they lie there, of others as transformers loads them.

    So is a folder of a model that sees: its tensors have other names on disk than in memory. NotFoundError if there is
    no such model; the message says what to give.
    """
    folder = Path(source)
    if not source or (folder.exists() and not any((folder / name).exists() for name in PROCESSOR_FILES)):
        return read_folder(folder)
    return load_raw(source)


def read_folder(folder: Path) -> tuple[dict[str, bytes], list[RawTensor]]:
    """The small files of a model's folder, and its tensors. NotFoundError if there is no model in it."""
    try:
        files = {
            path.name: path.read_bytes() for path in folder.iterdir() if path.suffix in (".json", ".jinja", ".model")
        }
        names = set(json.loads(files[INDEX])["weight_map"].values()) if INDEX in files else {SINGLE}
        return files, [tensor for name in sorted(names) for tensor in _tensors(folder / name)]
    except (OSError, SafetensorError, json.JSONDecodeError, KeyError) as error:
        raise NotFoundError(
            f"{folder} holds no model: `perilune serve model` takes a Hugging Face folder with config, tokenizer and "
            f"safetensors, a Hugging Face id, or package:NAME ({error})"
        ) from error


def _tensors(path: Path) -> list[RawTensor]:
    tensors = []
    with safe_open(path, "pt") as file:
        for name in file.keys():  # noqa: SIM118 it is no mapping
            tensors.append(raw_tensor(name, file.get_tensor(name)))
    return tensors


if __name__ == "__main__":
    main("model", StandaloneSettings, run)
