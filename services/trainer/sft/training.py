"""The plan's stages, from where they were left to the model that they make."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from perilune.errors import InvalidInputError
from perilune.models.chat import closing_token, set_template
from perilune.models.device import check_precision
from perilune.models.machine import find_device
from perilune.recipe import SftStage
from perilune.recipe.files import chat_template_text
from perilune.sft.folder import SftFolder
from perilune.sft.plan import SftPlan
from services.trainer.policy.adapter import adapt
from services.trainer.policy.created import create_policy
from services.trainer.policy.model import Policy
from services.trainer.policy.sources import load_policy
from services.trainer.policy.threads import use_threads
from services.trainer.sft.display import Display
from services.trainer.sft.outputs import Checkpoints, LeftOutRows, Lines, save_adapter, save_model, save_report
from services.trainer.stages.runner import StageStep, run_stages
from services.trainer.stages.sft import Sft
from services.trainer.stages.stage import Setting


def train(folder: SftFolder, should_stop: Callable[[], bool], display: Display) -> dict[str, Any]:
    """Trains, writes the model, and returns the report.

    Raises:
        InterruptedTraining: should_stop said so; what was done is kept.
        PeriluneError: the model or the data cannot be used, or the disk is full, as the message says.
    """
    plan, started = folder.read_plan(), time.perf_counter()
    use_threads(plan.trainer.num_threads)
    device = find_device(os.environ.get("PERILUNE_DEVICE", "auto"))
    check_precision(device, plan.trainer.precision)
    display.say(f"training on {device.in_words()}")
    policy = make_policy(plan, display).to(device)
    if plan.trainer.adapter:
        adapt(policy.model, plan.trainer.adapter, plan.seed)
    lines, rows, stages = Lines(folder), LeftOutRows(folder), dict[int, Sft]()

    def make(index: int, table: SftStage, policy: Policy, recipe: Setting) -> Sft:
        stages[index] = Sft(table, policy, recipe, rows.of_stage(index))
        return stages[index]

    last: dict[int, StageStep] = {}

    def on_step(step: StageStep) -> None:
        last[step.index] = step
        lines(step)
        display(step)

    file = Checkpoints(folder, policy, lines)
    run_stages(list(enumerate(plan.stages)), policy, plan, file, should_stop, on_step, make)
    save_model(policy, folder.model)
    if plan.trainer.adapter:
        save_adapter(policy, plan, folder)
    report = {
        "model": str(folder.model),
        "seconds": time.perf_counter() - started,  # of this process
        "stages": [{"stage": index, **_of_stage(stage, last.get(index))} for index, stage in stages.items()],
    }
    save_report(folder, report)
    file.remove()
    return report


def make_policy(plan: SftPlan, display: Display) -> Policy:
    """The plan's model with its template and end token. Errors as of `load_policy`."""
    table = plan.model
    template = table.chat_template and chat_template_text(table.chat_template)

    def prepare(tokenizer: Any) -> None:
        set_template(tokenizer, template, table.template_arguments)

    if table.create is not None:
        policy = create_policy(table.create, plan.seed, prepare)
    else:
        assert table.path is not None  # the table's check: one of both
        policy = load_policy(table.path, prepare)
    if plan.end_token is not None:
        _set_end(policy, plan.end_token)
    elif policy.tokenizer.chat_template and closing_token(policy.tokenizer, policy.end_tokens) is None:
        display.say(
            "the chat template closes the assistant's turn with none of the model's end tokens: "
            f"{policy.tokenizer.convert_ids_to_tokens(policy.eos_token_id)!r} is put behind each response; "
            "if the template writes another token there, set end_token to it"
        )
    return policy


def _set_end(policy: Policy, token: str) -> None:
    """Makes a token one that ends responses. InvalidInputError: the tokenizer has no such token."""
    number = policy.tokenizer.get_vocab().get(token)
    if number is None:
        raise InvalidInputError(f"end_token: the model's tokenizer has no token {token!r}")
    policy.tokenizer.eos_token = token
    policy.model.config.eos_token_id = number
    if policy.model.generation_config is not None:
        policy.model.generation_config.eos_token_id = number


def _of_stage(stage: Sft, last: StageStep | None) -> dict[str, Any]:
    of_step = ("loss", "heldout_loss")
    measured = {name: last.metrics[name] for name in of_step if name in last.metrics} if last else {}
    return {**stage.facts(), "num_steps": stage.num_steps, **measured}
