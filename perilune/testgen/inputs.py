"""Inputs of a problem: of each kind its share, from generators or examples; malformed and repeated ones are dropped."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random

from perilune.concurrency import all_of
from perilune.testgen.execution import Sandbox, limits_of
from perilune.testgen.mutation import mutated
from perilune.testgen.problem import ADVERSARIAL, EXTREME, RANDOM, SMALL, Generator, Problem
from perilune.testgen.settings import CaseSettings

SHARES = {SMALL: 0.2, EXTREME: 0.2, ADVERSARIAL: 0.2, RANDOM: 0.4}
MAX_FAILURES = 3  # of a generator's runs for a kind, after which it is not run for it again
NUM_ROUNDS = 4  # in which missing inputs are asked for
MAX_SHOWN_CHARS = 200


@dataclass(frozen=True)
class Input:
    """One input, and the kind of generator that made it."""

    kind: str
    text: bytes


@dataclass
class Gathered:
    """The inputs of a problem, and what was dropped on the way."""

    inputs: list[Input] = field(default_factory=list)
    num_repeated: int = 0
    num_malformed: int = 0
    malformed: list[str] = field(default_factory=list)  # the first few, with the reason
    failures: list[str] = field(default_factory=list)  # of generators, in words

    def note_malformed(self, found: Input, why: str) -> None:
        """Counts an input that is dropped."""
        self.num_malformed += 1
        if len(self.malformed) < 3:
            self.malformed.append(f"{shown(found.text)}: {why}")


def quotas(num_cases: int) -> Mapping[str, int]:
    """Returns how many inputs of each kind; what does not divide goes to the random ones.

    >>> quotas(50)
    {'small': 10, 'extreme': 10, 'adversarial': 10, 'random': 20}
    """
    found = {kind: int(share * num_cases) for kind, share in SHARES.items() if kind != RANDOM}
    return found | {RANDOM: num_cases - sum(found.values())}


class Source:
    """One generator of one problem, or its examples, with a place in the sequence of each kind."""

    def __init__(self, problem: Problem, generator: Generator | None, sandbox: Sandbox, settings: CaseSettings) -> None:
        self._problem, self._generator, self._sandbox, self._settings = problem, generator, sandbox, settings
        self._next: dict[str, int] = {}
        self.kinds: Sequence[str] = generator.kinds if generator else tuple(SHARES)
        self._failures: dict[str, list[str]] = {}
        self._num_written = 0

    @property
    def failures(self) -> list[str]:
        """Why runs of the generator gave nothing."""
        return [f"{kind}: {why}" for kind, reasons in self._failures.items() for why in reasons]

    async def draw(self, kind: str, count: int) -> list[bytes]:
        """About so many further inputs of a kind; fewer where the generator fails or has no more."""
        if self._generator is None:
            return [self._mutated(kind, self._place(kind)) for _ in range(count)]
        found = await self._run(self._generator, kind, count)  # alone first: a broken one is found out by one run
        if 0 < len(found) < count:
            runs = [self._run(self._generator, kind, count) for _ in range(count - len(found))]
            found += [text for texts in await all_of(runs) for text in texts]
        return found[:count]

    async def _run(self, generator: Generator, kind: str, count: int) -> list[bytes]:
        if self._is_broken_for(kind):
            return []
        arguments = [str(self._settings.seed), kind, str(self._place(kind)), str(count)]
        limits = limits_of(self._settings.generator_s, self._settings.memory_mb, self._settings.max_input_bytes)
        written = await self._sandbox.generate(generator.program, arguments, limits)
        self._num_written += len(written.inputs)
        if not written.inputs:
            self._failures.setdefault(kind, []).append(written.reason)
        return list(written.inputs)

    def _is_broken_for(self, kind: str) -> bool:
        """True if the generator has failed too often: for this kind, or in all where it never wrote anything."""
        failed = self._failures.get(kind, []) if self._num_written else self.failures
        return len(failed) >= MAX_FAILURES

    def _mutated(self, kind: str, place: int) -> bytes:
        rng = Random(f"{self._settings.seed}/{self._problem.id}/{kind}/{place}")
        return mutated(self._problem.examples, kind, rng, is_function=bool(self._problem.entry_point))

    def _place(self, kind: str) -> int:
        self._next[kind] = self._next.get(kind, -1) + 1
        return self._next[kind]


async def gather(
    problem: Problem, generators: Sequence[Generator], sandbox: Sandbox, settings: CaseSettings
) -> Gathered:
    """The problem's inputs: examples first, then of each kind its share. Without generators, made of the examples."""
    given: Sequence[Generator | None] = generators or ([None] if problem.examples else [])
    sources = [Source(problem, generator, sandbox, settings) for generator in given]
    gathered = Gathered()
    await _add(problem, gathered, [Input("example", text) for text in problem.examples], sandbox, settings)
    gathered.inputs = gathered.inputs[: settings.num_cases // 5]
    for kind, count in quotas(settings.num_cases - len(gathered.inputs)).items():
        await _fill(problem, gathered, kind, count, sources, sandbox, settings)
    missing = settings.num_cases - len(gathered.inputs)
    await _fill(problem, gathered, RANDOM, missing, sources, sandbox, settings)
    gathered.failures = list(dict.fromkeys(failure for source in sources for failure in source.failures))
    return gathered


async def _fill(
    problem: Problem,
    gathered: Gathered,
    kind: str,
    count: int,
    sources: Sequence[Source],
    sandbox: Sandbox,
    settings: CaseSettings,
) -> None:
    """Adds inputs of a kind; asks again for what was malformed or repeated, a few times."""
    wanted = len(gathered.inputs) + count
    able = [source for source in sources if kind in source.kinds]
    for _ in range(NUM_ROUNDS):
        missing = wanted - len(gathered.inputs)
        if missing <= 0 or not able:
            return
        each = -(-missing // len(able))
        drawn = [Input(kind, text) for source in able for text in await source.draw(kind, each)]
        if not drawn:
            return
        await _add(problem, gathered, drawn, sandbox, settings)
        del gathered.inputs[wanted:]


async def _add(
    problem: Problem, gathered: Gathered, drawn: Sequence[Input], sandbox: Sandbox, settings: CaseSettings
) -> None:
    """Adds what is new and well formed."""
    known = {found.text for found in gathered.inputs}
    fresh = list({found.text: found for found in drawn if found.text not in known}.values())
    gathered.num_repeated += len(drawn) - len(fresh)
    reasons = [malformed_by_rule(problem, found.text, settings) for found in fresh]
    accepted = [found for found, why in zip(fresh, reasons, strict=True) if not why]
    for found, why in zip(fresh, reasons, strict=True):
        if why:
            gathered.note_malformed(found, why)
    verdicts = await validate(problem, [found.text for found in accepted], sandbox, settings)
    for found, verdict in zip(accepted, verdicts, strict=True):
        if verdict is None:
            gathered.inputs.append(found)
        else:
            gathered.note_malformed(found, verdict)


def malformed_by_rule(problem: Problem, text: bytes, settings: CaseSettings) -> str:
    """Returns what is wrong with an input of any problem: it is too long, or no list of arguments; empty if nothing
    is."""
    if len(text) > settings.max_input_bytes:
        return f"it is longer than {settings.max_input_bytes} bytes"
    if not problem.entry_point:
        return ""
    try:
        is_list = isinstance(json.loads(text), list)
    except (ValueError, RecursionError):
        is_list = False
    return "" if is_list else "it is no JSON list of a function's arguments"


class ValidatorError(Exception):
    """The validator itself fails: it says nothing of inputs."""


async def validate(
    problem: Problem, texts: Sequence[bytes], sandbox: Sandbox, settings: CaseSettings
) -> list[str | None]:
    """For each input None, or why the validator rejects it. ValidatorError: it exceeds a limit or does not compile."""
    if problem.validator is None or not texts:
        return [None] * len(texts)
    limits = limits_of(settings.generator_s, settings.memory_mb, settings.max_input_bytes)
    outcomes = await sandbox.outcomes(problem.validator, texts, limits)
    for outcome in outcomes:
        if outcome.output is None and not outcome.crashed:
            raise ValidatorError(f"the validator fails: {outcome.reason}")
    return [
        None if outcome.output is not None else f"the validator rejects it ({outcome.reason})" for outcome in outcomes
    ]


def shown(text: bytes) -> str:
    """An input for a reader, shortened."""
    decoded = text.decode("utf-8", "replace")
    return decoded if len(decoded) <= MAX_SHOWN_CHARS else f"{decoded[:MAX_SHOWN_CHARS]}… ({len(text)} bytes)"
