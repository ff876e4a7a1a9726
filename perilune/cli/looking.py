"""`recipe check --deep`: what the model will read and what the graders will say, shown before anything is trained.

It looks through the services' own code, so they are imported here, when they are needed, and with them torch.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, TextIO

from perilune.api.reward.v1.reward_pb2 import SCORE_STATUS_OK, GraderChoice, ScoreStatus
from perilune.api.trajectory.v1.trajectory_pb2 import Prompt
from perilune.errors import InvalidInputError
from perilune.grading.plugin import load_function, start_grader
from perilune.models.chat import prompt_ids
from perilune.recipe import Recipe, option_text
from perilune.recipe.needs import function_of, needs

NUM_SHOWN = 3
NUM_TOKENS_SHOWN = 80
NUM_COUNTED = 200  # prompts whose tokens are counted
# What grades no answer that could be made from a reference: its reference holds tests, or a model is asked.
NOT_GRADED = ("code", "judge")
GRADING_S, GRADING_BYTES = 5.0, 1 << 30


def show(recipe: Recipe, out: TextIO) -> None:
    """Prints prompts with their tokens, and how the graders take the reference answer, as comments of TOML. What is
    wrong is a warning on stderr too.

    NotFoundError or InvalidInputError if the model has no tokenizer that can be read.
    """
    from services.master.prompts import open_prompts

    prompts = open_prompts(recipe.prompts, recipe.seed)
    some = [prompts.train(index) for index in range(min(NUM_COUNTED, prompts.num_train))]
    for line in [*_prompts(recipe, some), *asyncio.run(_graded(recipe, some[0]))]:
        # A comment of TOML holds no control characters.
        text = "".join(c if c.isprintable() or c == " " else repr(c)[1:-1] for c in line)
        print(f"# {text}".rstrip(), file=out)
        if line.startswith("warning: "):
            print(f"perilune: {text}", file=sys.stderr)


def _prompts(recipe: Recipe, prompts: Sequence[Prompt]) -> Iterator[str]:
    from services.trainer.policy.sources import make_tokenizer, sees
    from services.trainer.preflight import context_of

    if any(prompt.images for prompt in prompts) and not sees(recipe):
        yield "warning: prompts have images, and the model reads text only: set model.create.vision, or another model"
    tokenizer: Any = make_tokenizer(recipe)
    context = context_of(recipe) or sys.maxsize
    lengths: list[int] = []
    refused: list[str] = []
    yield ""
    for number, prompt in enumerate(prompts):
        try:
            ids = _tokens(prompt, tokenizer, context)
        except InvalidInputError as error:
            refused.append(str(error))
            continue
        lengths.append(len(ids))
        if number < NUM_SHOWN:
            yield from _shown(number, prompt, ids, tokenizer)
    if refused:
        yield f"warning: {len(refused)} of {len(prompts)} prompts cannot be read by the model, such as: {refused[0]}"
    if lengths:
        yield f"{len(prompts)} prompts: {min(lengths)} to {max(lengths)} tokens"
        if cut := sum(length + recipe.rollout.max_tokens > context for length in lengths):
            yield (
                f"warning: {cut} of {len(prompts)} prompts leave less than rollout.max_tokens = "
                f"{recipe.rollout.max_tokens} of the model's context of {context}"
            )


def _tokens(prompt: Prompt, tokenizer: Any, context: int) -> list[int]:
    from services.rollout.tokenizer import messages_of, read_prompt

    if prompt.images:  # each stands there as one placeholder, however many tokens it will take
        return prompt_ids(tokenizer, messages_of(prompt))
    return read_prompt(prompt, tokenizer, context).tokens.tolist()


def _shown(number: int, prompt: Prompt, ids: list[int], tokenizer: Any) -> Iterator[str]:
    yield f"prompt {number}, {len(ids)} tokens, reference {prompt.reference!r:.200}"
    yield from (f"  {line}" for line in tokenizer.decode(ids, skip_special_tokens=False).splitlines())
    more = f" and {len(ids) - NUM_TOKENS_SHOWN} more" * (len(ids) > NUM_TOKENS_SHOWN)
    pieces = tokenizer.convert_ids_to_tokens(ids[:NUM_TOKENS_SHOWN])
    yield f"  tokens: {' | '.join(map(str, pieces))}{more}"
    yield f"  ids: {' '.join(map(str, ids[:NUM_TOKENS_SHOWN]))}{more}"
    yield ""


# --- The graded answer --------------------------------------------------------------------------------------------


async def _graded(recipe: Recipe, prompt: Prompt) -> list[str]:
    """Each grader's score of the reference answer; a warning where the first does not find it right."""
    from services.reward import scoring
    from services.reward.graders.grader import GradingSample
    from services.reward.processes import Processes

    tables = [table for table in recipe.reward.graders if table.name not in NOT_GRADED]
    left_out = [
        f"{t.name} is not tried: no answer can be made for it" for t in recipe.reward.graders if t not in tables
    ]
    if not tables:
        return ["", *left_out]
    response = answer_of(recipe, prompt.reference)
    async with _plugged_in(recipe):
        choices = scoring.read_choices(
            GraderChoice(name=t.name, weight=t.weight, options={k: option_text(v) for k, v in t.options.items()})
            for t in tables
        )
        question = "\n".join(turn.content for turn in prompt.messages)
        sample = GradingSample(question, prompt.reference, response)
        with Processes(1, GRADING_S, GRADING_BYTES) as processes:
            score = await scoring.score(sample, choices, processes)
    lines = ["", f"the reference of prompt 0 as a response: {response!r:.300}"]
    for component in score.components:
        status = ScoreStatus.Name(component.status).removeprefix("SCORE_STATUS_")
        value = f"{component.value:g}" if component.status == SCORE_STATUS_OK else status
        why = "; ".join(f"{key}: {text}" for key, text in sorted(component.evidence.items()))
        lines.append(f"  {component.grader}: {value} (weight {component.weight:g}) {why:.300}")
    first = score.components[0]
    if recipe.reward.graders[0] in tables and not (first.status == SCORE_STATUS_OK and first.value == 1):
        lines.append(f"warning: {first.grader} does not find the reference itself right: {lines[2].strip()}")
    return [*lines, *left_out]


def answer_of(recipe: Recipe, reference: str) -> str:
    """A right response: the reference, behind the marker that the first grader with one looks for."""
    markers = [str(table.options["marker"]) for table in recipe.reward.graders if table.options.get("marker")]
    return f"{markers[0]} {reference}" if markers else reference


@contextlib.asynccontextmanager
async def _plugged_in(recipe: Recipe) -> AsyncIterator[None]:
    """Serves the recipe's own graders, or reaches them, while the block runs."""
    from services.reward.plugins import plugged_in

    addresses: dict[str, str] = {}
    servers = []
    try:
        for name, place in needs(recipe).plugins.items():
            if function_of(place):
                server, addresses[name] = await start_grader(*load_function(place), name=name)
                servers.append(server)
            else:
                addresses[name] = place
        async with plugged_in(addresses):
            yield
    finally:
        for server in servers:
            await server.stop(None)
