"""Perilune's own driver: draws responses from an endpoint, has them graded, and adds up what they are worth.

Responses and verdicts are kept in one SQLite file by the digest of all that they depend on, so that the same command
goes on where it was stopped and asks for nothing twice. A sample without a verdict is a failure and in no figure.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from perilune.api.reward.v1.reward_pb2 import SCORE_STATUS_OK, Score
from perilune.client import AsyncRewardClient, score_request
from perilune.completions import Cache, Model, text_in
from perilune.concurrency import as_finished
from perilune.errors import InvalidInputError, StateError, UnavailableError
from perilune.evaluation.benchmarks import Task
from perilune.evaluation.metrics import Figure, Response, figures_of
from perilune.evaluation.problems import Problem

GRADED_TOGETHER = 64
SHOWN_EVERY_S = 5.0
MAX_SHOWN_CHARS = 32_000  # of each text of a sample that the master keeps


@dataclass(frozen=True)
class Sampling:
    """Says how responses are drawn; None is the task's own."""

    num_samples: int | None = None
    temperature: float | None = None
    top_p: float = 1.0
    max_tokens: int | None = None
    system: str = ""
    plain: bool = False  # the question as a text to complete, without a chat template
    max_concurrent: int = 16

    def of_task(self, task: Task) -> Sampling:
        """The same, with the task's own values where none are given.

        InvalidInputError: several responses are asked for at temperature 0, where they would be one.
        """
        num = self.num_samples or task.num_samples
        temperature = task.temperature if self.temperature is None else self.temperature
        if num > 1 and temperature == 0:
            raise InvalidInputError(
                f"{num} responses at temperature 0 are one response {num} times: give --temperature, or --samples 1"
            )
        tokens = self.max_tokens or task.max_tokens
        return Sampling(num, temperature, self.top_p, tokens, self.system, self.plain, self.max_concurrent)

    def as_json(self) -> dict[str, Any]:
        """What decides which tokens are drawn, for digests and readers."""
        return {
            "num_samples": self.num_samples,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "max_tokens": self.max_tokens,
            **({"system": self.system} if self.system else {}),
            "format": "plain" if self.plain else "chat",
        }


@dataclass(frozen=True)
class Drawn:
    """One response: what was written, how long it is, and by which weights."""

    problem: int
    number: int
    text: str = ""
    num_tokens: int = 0
    finish: str = ""
    version: str = ""  # as the endpoint names it; empty where it does not
    failure: str = ""


@dataclass(frozen=True)
class Judged:
    """A response with what it is worth, or why that is not known."""

    drawn: Drawn
    value: float | None
    evidence: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Measured:
    """Describes what an evaluation found."""

    figures: Sequence[Figure]
    samples: Sequence[Judged]
    seconds: float
    version: str = ""

    @property
    def num_failed(self) -> int:
        """Returns how many samples have no verdict."""
        return sum(sample.value is None for sample in self.samples)


@dataclass(frozen=True)
class Means:
    """Describes what an evaluation works with."""

    model: Model
    cache: Cache
    reward_address: str
    notify: Callable[[str], None]


async def measure(task: Task, sampling: Sampling, means: Means) -> Measured:
    """Asks every problem of a task and grades the responses.

    Args:
        task: its problems.
        sampling: with the task's own values filled in.
        means: the model, and who grades.

    Raises:
        InvalidInputError: the endpoint rejects the model or its prompts; no sample was scored.
        StateError: the weights behind the endpoint changed meanwhile, or the disk takes no more.
    """
    began = time.monotonic()
    await _try_one(means.model, task.problems[0], sampling)
    coming = _shown(_draw(means.model, task.problems, sampling), task, sampling, means.notify)
    drawn = sorted([each async for each in coming], key=lambda each: (each.problem, each.number))
    version = _one_version(drawn)
    async with AsyncRewardClient(means.reward_address) as rewards:
        judged = await _judge(rewards, task.problems, drawn, means.cache)
    if all(sample.value is None for sample in judged):
        reason = judged[0].drawn.failure or judged[0].evidence.get("why", "")
        raise InvalidInputError(f"{task.name}: no sample could be scored; the first: {reason}")
    figures = figures_of(_by_problem(judged), votes=task.votes)
    return Measured(figures, judged, time.monotonic() - began, version)


async def _try_one(model: Model, problem: Problem, sampling: Sampling) -> None:
    """Asks once before all else: an endpoint that rejects one prompt for its form rejects them all."""
    try:
        await _ask(model, problem, sampling, 0)
    except UnavailableError as error:
        said = str(error)
        if "template" in said:
            raise InvalidInputError(
                f"the model has no chat template, which this task's messages need: --plain asks without one ({said})"
            ) from error
        if "rejects this request" not in said:  # it is away
            raise


async def _draw(model: Model, problems: Sequence[Problem], sampling: Sampling) -> AsyncIterator[Drawn]:
    places = ((problem, number) for problem in range(len(problems)) for number in range(sampling.num_samples or 1))
    work = (_drawn(model, problems, place, sampling) for place in places)
    async with contextlib.aclosing(as_finished(work, sampling.max_concurrent)) as drawn:
        async for each in drawn:
            yield each


async def _drawn(model: Model, problems: Sequence[Problem], place: tuple[int, int], sampling: Sampling) -> Drawn:
    problem, number = place
    try:
        return Drawn(problem, number, **json.loads(await _ask(model, problems[problem], sampling, number)))
    except UnavailableError as error:  # of this request alone: others may do
        return Drawn(problem, number, failure=str(error))


async def _ask(model: Model, problem: Problem, sampling: Sampling, number: int) -> str:
    system = [{"role": "system", "content": sampling.system}] if sampling.system else []
    body = {
        "model": model.name,
        **({"prompt": problem.question} if sampling.plain else {"messages": [*system, *problem.messages]}),
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "max_tokens": sampling.max_tokens,
    }
    return await model.kept("completions" if sampling.plain else "chat/completions", body, number, reply_in)


def reply_in(content: bytes) -> str | None:
    """A completion as what is kept of it, in JSON: text, length in tokens, why it ended, by which weights."""
    try:
        document = json.loads(content)
        choice = document["choices"][0]
        text = choice["text"] if "text" in choice else text_in(content)
        usage, policy = document.get("usage") or {}, document.get("perilune") or {}
        kept = {
            "text": str(text or "").encode("utf-8", "replace").decode(),
            "num_tokens": int(usage.get("completion_tokens") or 0),
            "finish": str(choice.get("finish_reason") or ""),
            "version": _version_of(choice.get("perilune") or {}, policy),
        }
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):  # whatever an endpoint may send
        return None
    return json.dumps(kept, ensure_ascii=False)


def _version_of(of_choice: Mapping[str, Any], served: Mapping[str, Any]) -> str:
    """The weights that wrote a response: of every segment where the endpoint says so, else what it serves."""
    wrote = [*dict.fromkeys(_name_of(segment) for segment in of_choice.get("segments") or [])]
    return " ".join(wrote) or (_name_of(served) if served else "")


def _name_of(policy: Mapping[str, Any]) -> str:
    return f"v{policy.get('version', 0)}-{policy.get('digest', '')}"


def _one_version(drawn: Sequence[Drawn]) -> str:
    """The version that wrote everything. StateError if several did: that would be a figure of none of them."""
    versions = sorted({each.version for each in drawn if each.version})
    if len(versions) > 1 or any(" " in version for version in versions):
        raise StateError(
            f"the weights behind the endpoint changed while it was asked ({', '.join(versions)}): evaluate one version "
            "of the run, RUN@VERSION"
        )
    return versions[0] if versions else ""


async def _judge(
    rewards: AsyncRewardClient, problems: Sequence[Problem], drawn: Sequence[Drawn], cache: Cache
) -> list[Judged]:
    judged: dict[int, Judged] = {}
    waiting: list[int] = []
    for place, each in enumerate(drawn):
        kept = None if each.failure else cache.get(_verdict_key(problems[each.problem], each.text))
        if each.failure:
            judged[place] = Judged(each, None, {"why": each.failure})
        elif kept is not None:
            judged[place] = _judged(each, json.loads(kept))
        else:
            waiting.append(place)
    for part in _parts(waiting, GRADED_TOGETHER):
        requests = [_request(problems[drawn[place].problem], drawn[place].text) for place in part]
        async for index, score in rewards.score_batch(requests):
            each, verdict = drawn[part[index]], _verdict(score)
            if verdict["value"] is not None:
                cache.put(_verdict_key(problems[each.problem], each.text), json.dumps(verdict, ensure_ascii=False))
            judged[part[index]] = _judged(each, verdict)
    return [judged.get(place, Judged(each, None, {"why": "no verdict came"})) for place, each in enumerate(drawn)]


def _parts(places: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    return (places[first : first + size] for first in range(0, len(places), size))


def _request(problem: Problem, response: str) -> Any:
    return score_request(response, problem.reference, list(problem.graders), problem.question)


def _verdict(score: Score) -> dict[str, Any]:
    evidence = {
        (key if len(score.components) == 1 else f"{component.grader} {key}"): value
        for component in score.components
        for key, value in component.evidence.items()
    }
    if score.status != SCORE_STATUS_OK:
        reason = evidence.pop("why", "") or evidence.pop("error", "")
        return {"value": None, "evidence": evidence | {"why": f"{score.status}: {reason}"}}
    return {"value": score.value, "evidence": evidence}


def _judged(drawn: Drawn, verdict: Mapping[str, Any]) -> Judged:
    return Judged(drawn, verdict["value"], verdict["evidence"])


def _verdict_key(problem: Problem, response: str) -> bytes:
    graded = ["verdict", problem.reference, problem.question, [*map(dict, problem.graders)], response]
    return hashlib.sha256(json.dumps(graded, sort_keys=True).encode()).digest()


def _by_problem(judged: Sequence[Judged]) -> list[list[Response]]:
    found: dict[int, list[Response]] = {}
    for each in judged:
        responses = found.setdefault(each.drawn.problem, [])
        if each.value is not None:
            answer = each.evidence.get("answer", each.drawn.text.strip())
            responses.append(Response(each.value, each.drawn.num_tokens, answer))
    return list(found.values())


async def _shown(
    drawn: AsyncIterator[Drawn], task: Task, sampling: Sampling, notify: Callable[[str], None]
) -> AsyncIterator[Drawn]:
    """Passes responses on, and says now and then how many there are."""
    total, count, last = len(task.problems) * (sampling.num_samples or 1), 0, time.monotonic()
    async for each in drawn:
        count += 1
        if time.monotonic() - last > SHOWN_EVERY_S or count == total:
            notify(f"{task.name}: {count:,} of {total:,} responses")
            last = time.monotonic()
        yield each
