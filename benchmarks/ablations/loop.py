"""One run in one process: the services' own parts without a bus, for runs that are too small to pay for one.

draw prompts (the master's sampler) → sample (the embedded engine) → grade (a reward grader) → the trainer's own reading
of groups and its learner → the next version.
"""

from __future__ import annotations

import itertools
import queue
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from perilune.api.master.v1.master_pb2 import ScoredGroup
from perilune.api.reward.v1.reward_pb2 import SCORE_STATUS_OK
from perilune.api.trajectory.v1.trajectory_pb2 import ENDING_LENGTH, PolicyVersion, Segment
from perilune.codec import pack
from perilune.models.tensors import raw_tensor, torch_tensor
from perilune.objectives.toggle import budget_of, in_budget_phase
from perilune.recipe import Recipe
from perilune.weights import RawTensor
from services.master import schedule
from services.master.prompts import PromptSet, open_prompts
from services.master.samplers import open_sampler
from services.master.samplers.sampler import draw
from services.master.samplers.statistics import Statistic
from services.reward.graders import find_grader
from services.reward.graders.grader import GradingSample
from services.rollout.engines import make_engine
from services.rollout.engines.base import Engine, EngineSpec, Generated, SampleRequest, Sampling
from services.rollout.tokenizer import read_prompt
from services.trainer.batch import Ages, read_group
from services.trainer.learner import Learner
from services.trainer.policy.model import Policy
from services.trainer.policy.sources import make_policy
from services.trainer.stages.runner import run_stages
from services.trainer.versions.origin import origin_of
from services.trainer.versions.snapshot import PublishedVersion, snapshot

KV_CACHE_BYTES = 256 << 20
HELDOUT_SEED = 1_000_000  # of held-out samples: the same for all variants of a seed
KEPT = (
    "reward", "accuracy", "mean_tokens", "mixed_groups", "entropy", "kl", "clipped", "grad_norm", "hidden_grad_norm",
    "hidden_grad_variance", "ratio_effective_share", "ratio_second_moment", "ratio_kl", "importance_mean",
    "num_loss_tokens", "staleness_mean", "toggle_budget_phase", "toggle_withheld", "toggle_budget", "toggle_no_budget",
)  # fmt: skip


@dataclass
class Response:
    """A response under way or ended: as a trajectory has it."""

    prompt: np.ndarray
    segments: list[Segment] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    ended: bool = False
    score: float = 0.0

    @property
    def context(self) -> np.ndarray:
        return np.concatenate([self.prompt, np.array(self.tokens, np.int32)])


@dataclass
class OpenGroup:
    """The responses to one prompt, and the version that they were asked for at."""

    index: int
    number: int
    version: int
    responses: list[Response]


class Loop:
    """A run of a recipe, iteration by iteration."""

    def __init__(self, recipe: Recipe, cache: Path, bits: int | None = None) -> None:
        """`cache`: where versions 0 are kept, by what they are made from. `bits`: of the engine's weights, rounded."""
        torch.set_num_threads(1)
        self.recipe, self._bits = recipe, bits
        self.policy = version_0(recipe, cache)
        self._prompts = open_prompts(recipe.prompts, recipe.seed)
        self._sampler = open_sampler(recipe.prompts.sampler, self._prompts)
        self._learner = Learner(self.policy, recipe)
        self._delivered: queue.SimpleQueue[Sequence[Generated]] = queue.SimpleQueue()
        self._published = self._publish(0)
        self._engine = self._make_engine()
        self._open: list[OpenGroup] = []
        self._tried: Counter[int] = Counter()
        self._right: Counter[int] = Counter()
        self._right_lengths: dict[int, list[int]] = {}  # of the first iteration in which a prompt had any
        self._digests: set[str] = {self._published.policy.digest}

    def run(self) -> dict[str, Any]:
        """All iterations: metrics of each, and evaluations of versions, in a JSON document."""
        started, iterations, evaluations = time.process_time(), [], [self.evaluate(0)]
        try:
            for number in range(self.recipe.trainer.num_iterations):
                metrics = self.iterate(number)
                iterations.append({key: round(metrics[key], 6) for key in KEPT if key in metrics})
                if self.recipe.evaluates_at(number + 1):
                    evaluations.append(self.evaluate(number + 1))
        finally:
            self._engine.close()
        seconds = round(time.process_time() - started, 2)
        return {"iterations": iterations, "evaluations": evaluations, "cpu_seconds": seconds}

    def iterate(self, number: int) -> dict[str, float]:
        """One iteration; the weights are the next version's afterwards."""
        recipe = self.recipe
        for place, index in enumerate(self._drawn(number)):
            tokens = read_prompt(self._prompts.train(index), self.policy.tokenizer, self._engine.max_context).tokens
            responses = [Response(tokens) for _ in range(recipe.rollout.group_size)]
            order = number * recipe.rollout.prompts_per_iteration + place
            self._open.append(OpenGroup(index, order, number, responses))
        self._generate(number)
        complete = [group for group in self._open if all(each.ended for each in group.responses)]
        self._open = [group for group in self._open if group not in complete]
        messages = [self._scored(group) for group in complete]
        self._set_budgets(number, complete, messages)
        ages = Ages.of(recipe, self._published.policy)
        groups = [read_group(message, ages, self._digests) for message in messages]
        assert not any(group.refused for group in groups)
        if recipe.trainer.drop_uniform_groups:
            groups = [each for each in groups if len({sample.score for sample in each.samples}) > 1]
        metrics = self._learner.train(number, groups)
        self._published = self._publish(number + 1)
        self._digests.add(self._published.policy.digest)
        self._engine.load(self._published.policy, rounded(self._published.state.tensors, self._bits)).result()
        return metrics

    def evaluate(self, version: int) -> dict[str, Any]:
        """Share of right answers to held-out problems and their mean length, one sample each at temperature 1.

        Drawn by the weights as they are, whatever the training's engine rounds: what is evaluated is the policy.
        """
        tensors = self._published.state.tensors
        if self._bits:
            self._engine.load(self._published.policy, tensors).result()
        asked = self.recipe.evaluation.num_asked(self._prompts.num_heldout)
        heldout = [self._prompts.heldout(index) for index in range(asked)]
        contexts = [read_prompt(each, self.policy.tokenizer, self._engine.max_context).tokens for each in heldout]
        requests = [
            SampleRequest(f"{index}", tokens, self._room(tokens, 0), Sampling(), HELDOUT_SEED + index)
            for index, tokens in enumerate(contexts)
        ]
        done = self._sampled(requests)
        written = [np.concatenate([span.tokens for span in done[f"{index}"].spans]) for index in range(asked)]
        scores = [self._score(prompt, tokens) for prompt, tokens in zip(heldout, written, strict=True)]
        if self._bits:
            self._engine.load(self._published.policy, rounded(tensors, self._bits)).result()
        return {
            "version": version,
            "accuracy": sum(scores) / asked,
            "mean_tokens": sum(len(tokens) for tokens in written) / asked,
            "num_problems": asked,
        }

    def samples(self) -> list[dict[str, Any]]:
        """`rollout.group_size` graded answers to each training prompt, as `perilune shortest` reads them."""
        table, prompts = self.recipe.rollout, [self._prompts.train(index) for index in range(self._prompts.num_train)]
        contexts = [read_prompt(each, self.policy.tokenizer, self._engine.max_context).tokens for each in prompts]
        requests = [
            SampleRequest(
                f"{index}/{number}",
                tokens,
                self._room(tokens, 0),
                Sampling(table.temperature),
                self.recipe.seed * 10**6 + index,
                number,
            )
            for index, tokens in enumerate(contexts)
            for number in range(table.group_size)
        ]
        rows = []
        for name, generated in sorted(self._sampled(requests).items()):
            prompt = prompts[int(name.partition("/")[0])]
            tokens = np.concatenate([span.tokens for span in generated.spans])
            rows.append(
                {
                    "question": prompt.messages[-1].content,
                    "response": self._text(tokens),
                    "correct": self._score(prompt, tokens) == 1,
                    "num_tokens": len(tokens),
                }
            )
        return rows

    def close(self) -> None:
        """Ends the engine."""
        self._engine.close()

    def _publish(self, number: int) -> PublishedVersion:
        return snapshot(self.policy, number, torch.float32)

    def _make_engine(self) -> Engine:
        return make_engine(
            EngineSpec(
                model_files=self.policy.model_files,
                policy=self._published.policy,
                tensors=rounded(self._published.state.tensors, self._bits),
                deliver=self._delivered.put,
                max_running=self.recipe.rollout.max_running,
                kv_cache_bytes=KV_CACHE_BYTES,
                device="cpu",
            )
        )

    def _drawn(self, number: int) -> list[int]:
        rates = {index: self._right[index] / count for index, count in self._tried.items()}
        known: Mapping[Statistic, Mapping[int, float]] = {Statistic.SUCCESS_RATES: rates, Statistic.DEAD_GROUPS: {}}
        return draw(self._sampler, number, self.recipe.rollout.prompts_per_iteration, self.recipe.seed, known)

    def _room(self, tokens: np.ndarray, num_written: int) -> int:
        return min(self.recipe.rollout.max_tokens - num_written, self._engine.max_context - len(tokens))

    def _generate(self, number: int) -> None:
        """Every response that has not ended goes on, for as many tokens as the iteration gives it."""
        requests, waiting = [], {}
        for group in self._open:
            budget = schedule.budget_tokens(self.recipe, group.version, number)
            for index, response in enumerate(group.responses):
                if not response.ended:
                    name, context = f"{group.number}/{index}", response.context
                    room = self._room(context, len(response.tokens))
                    sampling, seed = Sampling(self.recipe.rollout.temperature), self.recipe.seed * 10**6 + group.number
                    requests.append(
                        SampleRequest(
                            name, context, min(room, budget or room), sampling, seed, index, len(response.prompt)
                        )
                    )
                    waiting[name] = response, room
        for name, generated in self._sampled(requests).items():
            response, room = waiting[name]
            written = 0
            for span in generated.spans:
                response.segments.append(segment_of(span.policy, span.tokens, span.logprobs, span.full_logprobs))
                response.tokens += span.tokens.tolist()
                written += len(span.tokens)
            response.ended = generated.ending != ENDING_LENGTH or written == room

    def _sampled(self, requests: Sequence[SampleRequest]) -> dict[str, Generated]:
        self._engine.submit(requests)
        done: list[Generated] = []
        while len(done) < len(requests):
            done += self._delivered.get()
        return {each.sample.id: each for each in done}

    def _scored(self, group: OpenGroup) -> ScoredGroup:
        prompt = self._prompts.train(group.index)
        message = ScoredGroup(group_id=f"{group.number}")
        for number, response in enumerate(group.responses):
            score = self._score(prompt, np.array(response.tokens, np.int32))
            scored = message.samples.add()
            scored.trajectory.id = f"{group.number}/{number}"
            scored.trajectory.sample_index = number
            scored.trajectory.prompt_tokens.CopyFrom(pack(response.prompt))
            scored.trajectory.segments.extend(response.segments)
            scored.score.status, scored.score.value = SCORE_STATUS_OK, score
            response.score = score
            scored.score.components.add(grader="exact", status=SCORE_STATUS_OK, value=score, weight=1)
            self._tried[group.index] += 1
            self._right[group.index] += score == 1
        return message

    def _set_budgets(self, number: int, groups: Sequence[OpenGroup], messages: Sequence[ScoredGroup]) -> None:
        """As services/master/budgets.py does, of this iteration's groups."""
        table, found = self.recipe.reward.toggle, dict[int, list[int]]()
        for group in groups:
            lengths = [len(response.tokens) for response in group.responses if response.score == 1]
            found.setdefault(group.index, []).extend(lengths)
        self._right_lengths = {index: each for index, each in found.items() if each} | self._right_lengths
        for group, message in zip(groups, messages, strict=True):
            if table and in_budget_phase(table, number) and group.index in self._right_lengths:
                message.budget_tokens = budget_of(self._right_lengths[group.index], table.percentile)

    def _score(self, prompt: Any, tokens: np.ndarray) -> float:
        table = self.recipe.reward.graders[0]
        grader = find_grader(table.name)
        options = grader.read_options({key: str(value).lower() for key, value in table.options.items()})
        verdict = grader.grade(
            GradingSample(prompt.messages[-1].content, prompt.reference, self._text(tokens)), options
        )
        assert verdict is not None and verdict.value is not None  # noqa: PT018  # this grader always decides
        return float(verdict.value)

    def _text(self, tokens: np.ndarray) -> str:
        return str(self.policy.tokenizer.decode(tokens.tolist(), skip_special_tokens=True))


def version_0(recipe: Recipe, cache: Path) -> Policy:
    """The policy after its warm-up, made once for all variants of a seed."""
    policy, file = make_policy(recipe), cache / f"{origin_of(recipe)}.pt"
    if not recipe.stages_at("before"):
        return policy
    if file.exists():
        policy.model.load_state_dict(torch.load(file, weights_only=True))
        return policy
    run_stages(recipe.stages_at("before"), policy, recipe)
    cache.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial")
    torch.save(policy.model.state_dict(), partial)
    partial.rename(file)
    return policy


def segment_of(policy: PolicyVersion, tokens: np.ndarray, logprobs: np.ndarray, full_logprobs: np.ndarray) -> Segment:
    return Segment(policy=policy, tokens=pack(tokens), logprobs=pack(logprobs), full_logprobs=pack(full_logprobs))


def rounded(tensors: Sequence[RawTensor], bits: int | None) -> list[RawTensor]:
    """Matrices rounded to symmetric integers of so many bits, each row with its own scale, and back to floats."""
    if bits is None:
        return list(tensors)
    return [_rounded(tensor, bits) for tensor in tensors]


def _rounded(raw: RawTensor, bits: int) -> RawTensor:
    values = torch_tensor(raw)
    if values.ndim != 2:
        return raw
    largest = 2 ** (bits - 1) - 1
    scale = values.abs().amax(1, keepdim=True).clamp_min(1e-12) / largest
    return raw_tensor(raw.name, ((values / scale).round() * scale).contiguous())


def prompt_file(folder: Path, sizes: Sequence[int], num_each: int, seed: int, held_out: bool) -> Path:
    """A file of search problems of several sizes, easy to hard in turn, labelled by how many pairs there are to try."""
    import json

    from perilune.tasks import search

    name = f"search-{'-'.join(map(str, sizes))}-{num_each}-{seed}-{'heldout' if held_out else 'train'}.jsonl"
    file = folder / name
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        rows = [
            {"question": search.question(one), "answer": one.answer, "difficulty": size}
            for index, size in itertools.product(range(num_each), sizes)
            for one in [search.problem(seed, 10 * index + size, num_numbers=size, held_out=held_out)]
        ]
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


__all__ = ["Loop", "PromptSet", "prompt_file", "rounded", "version_0"]
