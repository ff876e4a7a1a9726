"""The reward service, reward models, and tokens for those who call."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from perilune.cli.commands.options import AsJson, end

app = typer.Typer()
reward_app = typer.Typer(no_args_is_help=True, help="Reward models: train them, and measure any grader.")

RewardAddress = Annotated[
    str, typer.Option(metavar="HOST:PORT", envvar="PERILUNE_REWARD_ADDRESS", help="The reward service.")
]
Deadline = Annotated[float, typer.Option(metavar="SECONDS", min=0.001, help="When all is to be scored.")]
DEFAULT_ADDRESS, DEFAULT_DEADLINE_S = "127.0.0.1:7041", 300.0


class RewardModelKind(StrEnum):
    """The kinds of reward model that can be trained."""

    CLASSIC = "classic"
    JUDGE = "judge"


class PromptName(StrEnum):
    """The judge's prompts, by name."""

    INSTRUCTED = "instructed"
    BARE = "bare"


@app.command()
def score(
    file: Annotated[
        typer.FileText | None,
        typer.Argument(metavar="[JSONL]", help='Lines such as {"response": …, "reference": …}; - is standard input.'),
    ] = None,
    grader: Annotated[
        list[str] | None,
        typer.Option(help='A name, or {"name": …, "weight": …, "options": {…}}; may be given often.'),
    ] = None,
    response: Annotated[str | None, typer.Option(help="One answer, in place of a file.")] = None,
    reference: Annotated[str, typer.Option(help="What the answer is compared with.")] = "",
    question: Annotated[str, typer.Option(help="For graders that read it.")] = "",
    address: RewardAddress = DEFAULT_ADDRESS,
    deadline: Deadline = DEFAULT_DEADLINE_S,
    list_graders: Annotated[
        bool, typer.Option("--graders", help="List the service's graders with their options, and score nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Score answers: a file of JSON lines, which come back with their scores, or one answer.

    A token and TLS come from PERILUNE_TOKEN and PERILUNE_TLS_CA. Exit status 1 if some answers got no score.
    """
    from perilune.cli import scoring
    from perilune.client.reward import read_graders, score_request

    if list_graders:
        end(scoring.list_graders(address, as_json))
    graders = read_graders(grader or [])
    if response is not None:
        request = score_request(response, reference, graders, question)
        end(scoring.score_pair(address, request, deadline, as_json))
    if file is None:
        raise typer.BadParameter("give a file of JSON lines (- for standard input), or --response")
    end(scoring.score_lines(address, file, graders, deadline, sys.stdout))


LabelledArgument = Annotated[
    Path, typer.Argument(metavar="JSONL", help='Lines of {"question", "reference", "response", "correct"}.')
]


@reward_app.command("train")
def reward_train(
    rows: LabelledArgument,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the model goes; must not exist yet.")],
    kind: Annotated[
        RewardModelKind, typer.Option(help="A value head, or a judge that reasons (rows with `reasoning`).")
    ] = RewardModelKind.CLASSIC,
    model: Annotated[
        str, typer.Option(help="A folder, a Hugging Face id, package:NAME, or `small`: one made on the spot.")
    ] = "small",
    heldout: Annotated[Path | None, typer.Option(metavar="JSONL", help="Else one question in ten.")] = None,
    prompt: Annotated[PromptName, typer.Option(help="Of a judge; `bare` for a small one.")] = PromptName.INSTRUCTED,
    passes: Annotated[float, typer.Option(min=0.01, help="Over the training answers.")] = 3.0,
    batch_size: Annotated[int, typer.Option(min=1)] = 32,
    learning_rate: Annotated[float | None, typer.Option(help="1e-5, or 3e-3 for `small`, if not given.")] = None,
    max_tokens: Annotated[int, typer.Option(min=8, help="Of what a value head reads at most.")] = 2048,
    seed: int = 0,
) -> None:
    """Train a reward model on labelled answers."""
    from perilune.cli.serving import exec_module

    options = {
        "--out": out,
        "--kind": kind,
        "--model": model,
        "--heldout": heldout,
        "--prompt": prompt,
        "--passes": passes,
        "--batch-size": batch_size,
        "--learning-rate": learning_rate,
        "--max-tokens": max_tokens,
        "--seed": seed,
    }
    given = [text for key, value in options.items() if value is not None for text in (key, str(value))]
    exec_module("services.trainer.reward_models.commands", [str(rows), *given], {})


@reward_app.command("reason")
def reward_reason(
    rows: LabelledArgument,
    out: Annotated[Path, typer.Option(metavar="JSONL", help="Rows with `reasoning`; must not exist yet.")],
    tries: Annotated[int, typer.Option(min=1, help="For each answer, at most.")] = 4,
    temperature: Annotated[float, typer.Option(min=0)] = 0.7,
) -> None:
    """Have the judge (PERILUNE_JUDGE_URL, _MODEL) reason about labelled answers; keep what led to the label."""
    from perilune.cli.serving import exec_module

    options = ["--out", str(out), "--tries", str(tries), "--temperature", str(temperature)]
    exec_module("services.reward.reasoning", [str(rows), *options], {})


@reward_app.command("evaluate")
def reward_evaluate(
    rows: LabelledArgument,
    grader: Annotated[
        list[str], typer.Option(help='A name, or {"name": …, "weight": …, "options": {…}}; may be given often.')
    ],
    address: RewardAddress = DEFAULT_ADDRESS,
    deadline: Deadline = DEFAULT_DEADLINE_S,
    as_json: AsJson = False,
) -> None:
    """Measure a grader, whichever it is, on labelled answers: accuracy and calibration.

    A token and TLS come from PERILUNE_TOKEN and PERILUNE_TLS_CA. Exit status 1 if some answers got no score.
    """
    from perilune.cli import reward_models
    from perilune.client.reward import read_graders
    from perilune.grading.labelled_answers import read_labelled_answers

    end(reward_models.evaluate(address, read_labelled_answers(rows), read_graders(grader), deadline, as_json))


@app.command()
def token(
    name: Annotated[str, typer.Argument(help="Who the token is for.")],
    role: Annotated[
        list[str],
        typer.Option(help="What it is: viewer, submitter, reward, sandbox, admin, or one of Perilune's services."),
    ],
    file: Annotated[
        Path, typer.Option(metavar="TOML", envvar="PERILUNE_TOKENS_FILE", help="The tokens file; made if missing.")
    ] = Path("tokens.toml"),
    requests_per_s: Annotated[float | None, typer.Option(min=0.001, help="No limit if not given.")] = None,
    max_concurrent: Annotated[int | None, typer.Option(min=1, help="No limit if not given.")] = None,
) -> None:
    """Make a token for a caller: its hash goes into the tokens file, and the token is printed once."""
    from perilune.cli import scoring

    print(scoring.new_token(file, name, role, requests_per_s, max_concurrent))
