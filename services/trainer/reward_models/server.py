"""A classic reward model as a grader: GraderService, for the reward service to plug in.

A batch is what came while the one before was computed: a lone answer does not wait, and many share a pass.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import torch
from blake3 import blake3
from pydantic import PositiveInt

from perilune.api.reward.v1 import grader_pb2
from perilune.api.reward.v1.grader_pb2_grpc import add_GraderServiceServicer_to_server
from perilune.errors import InvalidInputError, OverloadedError
from perilune.grading.judge_prompts import is_hollow
from perilune.grading.plugin import Graded, GradeFunction, GraderServicer
from perilune.models.attention import attention_of
from perilune.models.device import DeviceSetting
from perilune.models.machine import find_device
from perilune.runtime.service import Service, ServiceSettings, until_stopping
from services.trainer.reward_models.classic import RewardModel, Triple

logger = logging.getLogger(__name__)

SERVICE = grader_pb2.DESCRIPTOR.services_by_name["GraderService"]
THRESHOLD = "0.5"


class RewardModelSettings(ServiceSettings):
    """PERILUNE_MODEL, PERILUNE_NUM_THREADS, and so on."""

    model: Path = Path()  # the folder that `perilune reward train` wrote
    device: DeviceSetting = "auto"  # where it computes: auto, cpu, cuda, cuda:N
    num_threads: PositiveInt = 1
    max_batch: PositiveInt = 64  # answers computed together
    max_waiting: PositiveInt = 4096  # answers beyond this are refused with RESOURCE_EXHAUSTED


async def run(service: Service) -> None:
    """Answers with the model until the service is stopped. NotFoundError, InvalidInputError: there is none."""
    settings = service.settings
    assert isinstance(settings, RewardModelSettings)
    device = await asyncio.to_thread(find_device, settings.device)
    model = RewardModel.load(settings.model, device)
    attention = attention_of(model.policy.model)
    logger.info("computes on %s, attention %s, float32", device.in_words(), attention)
    with Batches(model.probabilities, settings.max_batch, settings.max_waiting, settings.num_threads) as batches:
        grader = GraderServicer(grader_of(batches), version_of(settings.model), "reward-model")
        add_GraderServiceServicer_to_server(grader, service.server)
        await service.listen([SERVICE])
        await service.ready()
        await until_stopping(service, batches.work())


def grader_of(batches: Batches) -> GradeFunction:
    """The model as a function that `perilune.grading.plugin` serves."""

    async def classic(question: str, reference: str, response: str, threshold: str = THRESHOLD) -> Graded:
        """1 if a language model with a value head gives the response a probability above `threshold` of being right
        by the reference, else 0; with an empty `threshold`, the probability itself."""
        above = _read_threshold(threshold)
        if not reference.strip():
            raise InvalidInputError("the prompt has no reference answer")
        if is_hollow(response):
            return 0.0, {"why": "no answer"}
        probability = await batches.ask((question, reference, response))
        return probability if above is None else float(probability > above), {"probability": f"{probability:.4f}"}

    return classic


def _read_threshold(text: str) -> float | None:
    try:
        value = float(text) if text else None
    except ValueError:
        value = -1.0
    if value is not None and not 0 <= value < 1:
        raise InvalidInputError(f"option 'threshold': a number from 0 to below 1, or nothing, not {text!r}")
    return value


def version_of(folder: Path) -> str:
    """A digest of the weights: another model is another version, and the same one never is."""
    digest = blake3()
    for path in sorted(folder.glob("*.safetensors")):
        digest.update(path.name.encode()).update_mmap(path)
    return digest.hexdigest()[:12]


class Batches:
    """Answers asked for one by one, and computed together on a thread of their own; use as a context manager."""

    def __init__(
        self,
        compute: Callable[[Sequence[Triple]], list[float]],
        max_batch: int,
        max_waiting: int,
        num_threads: int = 1,
    ) -> None:
        self._compute = compute
        self._max_batch = max_batch
        self._max_waiting = max_waiting
        self._waiting: asyncio.Queue[tuple[Triple, asyncio.Future[float]]] = asyncio.Queue()
        # torch counts threads by the thread that asks.
        self._thread = ThreadPoolExecutor(1, "reward-model", partial(torch.set_num_threads, num_threads))

    def __enter__(self) -> Batches:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown()

    async def ask(self, triple: Triple) -> float:
        """The model's value. OverloadedError if too many wait; whatever the model raised for its batch."""
        if self._waiting.qsize() >= self._max_waiting:
            raise OverloadedError("the reward model has as many answers as it can hold", retry_after_s=1.0)
        answer: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._waiting.put_nowait((triple, answer))
        return await answer

    async def work(self) -> None:
        """Computes batch after batch; a failed one fails for its callers, and the next goes on."""
        loop = asyncio.get_running_loop()
        while True:
            batch = await self._next()
            if not batch:
                continue
            triples, answers = zip(*batch, strict=True)
            computed = loop.run_in_executor(self._thread, self._compute, triples)
            await asyncio.wait([computed])
            for index, answer in enumerate(answers):
                if answer.done():  # its caller is gone
                    continue
                if error := computed.exception():
                    answer.set_exception(error)
                else:
                    answer.set_result(computed.result()[index])

    async def _next(self) -> list[tuple[Triple, asyncio.Future[float]]]:
        """One answer that waits, and what else is there; without those whose callers are gone."""
        batch = [await self._waiting.get()]
        with contextlib.suppress(asyncio.QueueEmpty):
            while len(batch) < self._max_batch:
                batch.append(self._waiting.get_nowait())
        return [(triple, answer) for triple, answer in batch if not answer.done()]
