"""The command line. This file holds the commands and their options; what they do is imported when it is done,
so that `perilune --help` answers at once.

Exit status: 0, or 1 for a failure that the message on stderr explains, 2 for a wrong command line, 130 after Ctrl-C.
"""

from __future__ import annotations

import json
import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Reinforcement learning for language models, as services.",
)
run_app = typer.Typer(no_args_is_help=True, help="Look at runs, stop them, continue them.")
fleet_app = typer.Typer(help="See who serves which version; keep versions, and go back to one.")
image_app = typer.Typer(no_args_is_help=True, help="Root file systems for the sandbox's programs.")
recipe_app = typer.Typer(no_args_is_help=True, help="Look at recipes.")
reward_app = typer.Typer(no_args_is_help=True, help="Reward models: train them, and measure any grader.")
app.add_typer(run_app, name="run")
app.add_typer(fleet_app, name="fleet")
app.add_typer(recipe_app, name="recipe")
app.add_typer(reward_app, name="reward")
app.add_typer(image_app, name="image")


class ServiceName(StrEnum):
    NATS = "nats"
    MASTER = "master"
    ROLLOUT = "rollout"
    REWARD = "reward"
    TRAINER = "trainer"
    RELAY = "relay"
    SANDBOX = "sandbox"
    REWARD_MODEL = "reward-model"
    MODEL = "model"


# The services whose module is not `services.NAME`.
SERVICE_MODULES = {
    ServiceName.REWARD_MODEL: "services.trainer.reward_models",
    ServiceName.MODEL: "services.rollout.standalone",
}


class RewardModelKind(StrEnum):
    CLASSIC = "classic"
    JUDGE = "judge"


class PromptName(StrEnum):
    INSTRUCTED = "instructed"
    BARE = "bare"


RecipeArgument = Annotated[Path, typer.Argument(metavar="RECIPE", help="A TOML file; recipes/ has some.")]
RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="The run's id; `perilune run list` shows them.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY.PATH=VALUE", help="Change a value of the recipe; may be given often."),
]
Home = Annotated[
    Path, typer.Option(envvar="PERILUNE_HOME", help="The folder of runs, logs and the database.", show_default=True)
]
Master = Annotated[
    str | None,
    typer.Option(metavar="HOST:PORT", envvar="PERILUNE_MASTER_ADDRESS", help="A master that runs already."),
]
Rollouts = Annotated[int | None, typer.Option(min=1, help="Rollout workers; one a core, two at most, if not given.")]
Rewards = Annotated[int, typer.Option(min=1, help="Reward workers.")]
NoView = Annotated[bool, typer.Option("--no-view", help="Plain lines in place of the live view.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
RunName = Annotated[str, typer.Option(metavar="RUN", help="The run's id; made from the recipe's name if not given.")]

DEFAULT_HOME = Path("runs")


def main() -> None:
    """The entry point: an error that Perilune raises on purpose is one message and exit status 1, no traceback."""
    try:
        app()
    except Exception as error:
        from perilune.errors import PeriluneError

        if not isinstance(error, PeriluneError):
            raise
        print(f"perilune: {error}", file=sys.stderr)
        sys.exit(1)


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    if version:
        from importlib import metadata

        print(metadata.version("perilune"))
        raise typer.Exit


# --- Runs from a recipe -------------------------------------------------------------------------------------------


@app.command()
def train(
    recipe: RecipeArgument,
    set_: Overrides = None,
    name: RunName = "",
    home: Home = DEFAULT_HOME,
    rollouts: Rollouts = None,
    rewards: Rewards = 1,
    master: Master = None,
    no_view: NoView = False,
    as_json: AsJson = False,
) -> None:
    """Run a recipe: start every service on this machine, train, report, stop them.

    Ctrl-C stops the run so that it can be resumed; a second one kills. With --master the run goes to services that
    run already, and nothing is started here.
    """
    from perilune.cli import training
    from perilune.recipe import load_recipe

    place = training.Place(home, master, rollouts, rewards)
    _exit(training.submit(load_recipe(recipe, set_ or []), name, place, training.Screen(not no_view, as_json)))


@app.command("eval")
def evaluate(
    recipe_or_run: Annotated[str, typer.Argument(help="A recipe's TOML file, or a run's id.")],
    model: Annotated[
        str | None, typer.Option(help="What to evaluate: a folder or Hugging Face id; a run's own weights by default.")
    ] = None,
    set_: Overrides = None,
    name: RunName = "",
    home: Home = DEFAULT_HOME,
    rollouts: Rollouts = None,
    rewards: Rewards = 1,
    master: Master = None,
    no_view: NoView = False,
    as_json: AsJson = False,
) -> None:
    """Measure a model's held-out accuracy on a recipe's problems, without training."""
    from perilune.cli import training

    place = training.Place(home, master, rollouts, rewards)
    recipe = training.evaluation_of(recipe_or_run, model, set_ or [], place)
    _exit(training.submit(recipe, name, place, training.Screen(not no_view, as_json)))


@app.command()
def sft(
    recipe: RecipeArgument,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the Hugging Face model folder goes.")],
    set_: Overrides = None,
) -> None:
    """Do a recipe's warm-up alone: supervised fine-tuning on reasoning traces."""
    from perilune.cli.serving import exec_module
    from perilune.recipe import load_recipe

    load_recipe(recipe, set_ or [])  # a mistake in it is told before torch is loaded
    overrides = [argument for override in set_ or [] for argument in ("--set", override)]
    exec_module("services.trainer.sft", [str(recipe), "--out", str(out), *overrides], {})


@recipe_app.command("check")
def check(recipe: RecipeArgument, set_: Overrides = None) -> None:
    """Check a recipe and print it with every default filled in."""
    from perilune.recipe import load_recipe

    print(load_recipe(recipe, set_ or []).model_dump_json(indent=2))


# --- Runs there are -----------------------------------------------------------------------------------------------


@run_app.command("list")
def list_runs(home: Home = DEFAULT_HOME, master: Master = None, as_json: AsJson = False) -> None:
    """List all runs, newest first."""
    from perilune.cli import inspect

    inspect.list_runs(home, master, as_json)


@run_app.command()
def show(run: RunArgument, home: Home = DEFAULT_HOME, master: Master = None, as_json: AsJson = False) -> None:
    """Show what a run did: accuracy, curves, samples, weights, ledger."""
    from perilune.cli import inspect

    inspect.show(run, home, master, as_json)


@run_app.command()
def watch(run: RunArgument, home: Home = DEFAULT_HOME, master: Master = None, no_view: NoView = False) -> None:
    """Watch a run until it ends. Ctrl-C leaves the run alone."""
    from perilune.cli import inspect

    _exit(inspect.watch(run, home, master, live=not no_view))


@run_app.command("export")
def export_run(
    run: RunArgument,
    home: Home = DEFAULT_HOME,
    master: Master = None,
    tensorboard: Annotated[Path | None, typer.Option(help="Write TensorBoard's event files below this folder.")] = None,
    wandb: Annotated[str | None, typer.Option(help="Write to this project of Weights & Biases.")] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Go on until the run ends.")] = False,
) -> None:
    """Write a run's curves for TensorBoard or Weights & Biases."""
    from perilune.cli import inspect

    inspect.export(run, home, master, tensorboard, wandb, follow)


@run_app.command()
def stop(run: RunArgument, home: Home = DEFAULT_HOME, master: Master = None) -> None:
    """Stop a run after the step at hand, and wait until it has stopped."""
    from perilune.cli import inspect

    inspect.stop(run, home, master)


@run_app.command()
def resume(
    run: RunArgument,
    home: Home = DEFAULT_HOME,
    rollouts: Rollouts = None,
    rewards: Rewards = 1,
    master: Master = None,
    no_view: NoView = False,
    as_json: AsJson = False,
) -> None:
    """Continue a stopped or failed run from its last version, starting the services if none run."""
    from perilune.cli import training

    place = training.Place(home, master, rollouts, rewards)
    _exit(training.resume(run, place, training.Screen(not no_view, as_json)))


@app.command()
def ledger(run: RunArgument, home: Home = DEFAULT_HOME, master: Master = None, as_json: AsJson = False) -> None:
    """Show where every sample of a run went. Exit status 1 if the ledger does not balance."""
    from perilune.cli import inspect

    _exit(inspect.ledger(run, home, master, as_json))


# --- The fleet and its weights ------------------------------------------------------------------------------------

VersionArgument = Annotated[int, typer.Argument(metavar="VERSION", min=0, help="`perilune fleet versions` shows them.")]


@fleet_app.callback(invoke_without_command=True)
def show_fleet(
    context: typer.Context, home: Home = DEFAULT_HOME, master: Master = None, as_json: AsJson = False
) -> None:
    """Show who is in the fleet, which version each serves, and where it got it from."""
    if context.invoked_subcommand is None:
        from perilune.cli import fleet as fleets

        fleets.show(home, master, as_json)


@fleet_app.command("versions")
def fleet_versions(run: RunArgument, home: Home = DEFAULT_HOME, master: Master = None, as_json: AsJson = False) -> None:
    """List the versions that a run's trainer keeps."""
    from perilune.cli import fleet as fleets

    fleets.versions(run, home, master, as_json)


@fleet_app.command("serve")
def fleet_serve(
    run: RunArgument,
    version: Annotated[
        int | None, typer.Argument(metavar="[VERSION]", min=0, help="The newest, and those to come, if not given.")
    ] = None,
    home: Home = DEFAULT_HOME,
    master: Master = None,
) -> None:
    """Have the fleet serve an older version, and hold back newer ones until told otherwise."""
    from perilune.cli import fleet as fleets

    fleets.serve(run, version, home, master)


@fleet_app.command("pin")
def fleet_pin(
    run: RunArgument,
    version: VersionArgument,
    unpin: Annotated[bool, typer.Option("--unpin", help="Keep it no longer.")] = False,
    home: Home = DEFAULT_HOME,
    master: Master = None,
) -> None:
    """Keep a version whatever comes after it."""
    from perilune.cli import fleet as fleets

    fleets.pin(run, version, not unpin, home, master)


@fleet_app.command("export")
def fleet_export(
    run: RunArgument,
    version: VersionArgument,
    out: Annotated[Path, typer.Argument(metavar="DIR", help="Where the Hugging Face model folder goes.")],
    home: Home = DEFAULT_HOME,
) -> None:
    """Write a kept version, as the fleet serves it, as a Hugging Face model folder with safetensors."""
    from perilune.cli import fleet as fleets

    fleets.export(run, version, out, home)


# --- The reward service -------------------------------------------------------------------------------------------


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
    address: Annotated[
        str, typer.Option(metavar="HOST:PORT", envvar="PERILUNE_REWARD_ADDRESS", help="The reward service.")
    ] = "127.0.0.1:7041",
    deadline: Annotated[float, typer.Option(metavar="SECONDS", min=0.001, help="When all is to be scored.")] = 300.0,
    as_json: AsJson = False,
) -> None:
    """Score answers: a file of JSON lines, which come back with their scores, or one answer.

    A token and TLS come from PERILUNE_TOKEN and PERILUNE_TLS_CA. Exit status 1 if some answers got no score.
    """
    from perilune.cli import scoring
    from perilune.client.reward import read_graders, score_request

    graders = read_graders(grader or [])
    if response is not None:
        request = score_request(response, reference, graders, question)
        _exit(scoring.score_pair(address, request, deadline, as_json))
    if file is None:
        raise typer.BadParameter("give a file of JSON lines (- for standard input), or --response")
    _exit(scoring.score_lines(address, file, graders, deadline, sys.stdout))


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
    address: Annotated[
        str, typer.Option(metavar="HOST:PORT", envvar="PERILUNE_REWARD_ADDRESS", help="The reward service.")
    ] = "127.0.0.1:7041",
    deadline: Annotated[float, typer.Option(metavar="SECONDS", min=0.001, help="When all is to be scored.")] = 300.0,
    as_json: AsJson = False,
) -> None:
    """Measure a grader, whichever it is, on labelled answers: accuracy and calibration.

    A token and TLS come from PERILUNE_TOKEN and PERILUNE_TLS_CA. Exit status 1 if some answers got no score.
    """
    from perilune.cli import reward_models
    from perilune.client.reward import read_graders
    from perilune.labelled import read_labelled

    _exit(reward_models.evaluate(address, read_labelled(rows), read_graders(grader), deadline, as_json))


@app.command()
def token(
    name: Annotated[str, typer.Argument(help="Who the token is for.")],
    role: Annotated[list[str], typer.Option(help="What it may call: reward, sandbox, runs, worker or admin.")],
    file: Annotated[
        Path, typer.Option(metavar="TOML", envvar="PERILUNE_TOKENS_FILE", help="The tokens file; made if missing.")
    ] = Path("tokens.toml"),
    requests_per_s: Annotated[float | None, typer.Option(min=0.001, help="No limit if not given.")] = None,
    max_concurrent: Annotated[int | None, typer.Option(min=1, help="No limit if not given.")] = None,
) -> None:
    """Make a token for a caller: its hash goes into the tokens file, and the token is printed once."""
    from perilune.cli import scoring

    print(scoring.new_token(file, name, role, requests_per_s, max_concurrent))


# --- The sandbox --------------------------------------------------------------------------------------------------


@app.command("exec", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def execute(
    file: Annotated[Path, typer.Argument(help="The program; what follows it are its arguments.", metavar="FILE")],
    arguments: Annotated[list[str] | None, typer.Argument(metavar="[ARG]...", show_default=False)] = None,
    language: Annotated[str, typer.Option(help="Where the file's extension does not say it.")] = "",
    beside: Annotated[
        list[Path] | None, typer.Option("--file", metavar="PATH", help="Lies beside it; may be given often.")
    ] = None,
    cpu: Annotated[float | None, typer.Option(metavar="SECONDS", help="CPU time.")] = None,
    wall: Annotated[float | None, typer.Option(metavar="SECONDS", help="Time by the clock.")] = None,
    memory: Annotated[int | None, typer.Option(metavar="MB", help="Memory of all its processes.")] = None,
    image: Annotated[str, typer.Option(metavar="NAME", help="Runs it in an image: `perilune image list`.")] = "",
    address: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", envvar="PERILUNE_SANDBOX_ADDRESS", help="A sandbox that runs.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Run a program in a sandbox: one that runs already, or one started for it.

    Standard input goes to the program. Exit status: the program's own, or 1 if a limit or a signal ended it.
    """
    from perilune.cli import exec as sandbox

    limits = sandbox.limits(cpu, wall, memory)
    _exit(sandbox.run(file, arguments or [], language, beside or [], limits, image, address, as_json))


@image_app.command("add")
def image_add(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What programs will ask for it by.")],
    archive: Annotated[Path, typer.Argument(metavar="ARCHIVE", help="Of `docker save`, or an OCI layout.")],
    as_json: AsJson = False,
) -> None:
    """Unpack an image's archive, check it, and keep it under a name."""
    _image("add", name, str(archive), as_json=as_json)


@image_app.command("list")
def image_list(as_json: AsJson = False) -> None:
    """List the images that are kept on this machine."""
    _image("list", as_json=as_json)


@image_app.command("remove")
def image_remove(
    name: Annotated[str, typer.Argument(metavar="NAME", help="`perilune image list` shows them.")],
) -> None:
    """Remove an image; not while a program is running in it."""
    _image("remove", name, as_json=False)


def _image(*arguments: str, as_json: bool) -> None:
    from perilune.cli.serving import exec_module

    exec_module("services.sandbox.images", [*(["--json"] if as_json else []), *arguments], {})


# --- Services and this machine ------------------------------------------------------------------------------------


@app.command()
def serve(
    service: Annotated[ServiceName, typer.Argument(help="Which one.")],
    listen: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="Where to answer; port 0: any.")] = None,
    nats: Annotated[str | None, typer.Option(metavar="URL", help="The NATS server.")] = None,
    master: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="The master.")] = None,
    advertise: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="How others reach this service.")] = None,
    home: Annotated[Path | None, typer.Option(help="The folder of runs, logs and the database.")] = None,
    model: Annotated[Path | None, typer.Option(metavar="DIR", help="For reward-model and model: its folder.")] = None,
    log_level: Annotated[str | None, typer.Option(help="DEBUG, INFO, WARNING or ERROR.")] = None,
) -> None:
    """Run one service in this process. What is not given comes from PERILUNE_* variables."""
    from perilune.cli import serving

    settings = {
        "PERILUNE_LISTEN": listen,
        "PERILUNE_NATS_URL": nats,
        "PERILUNE_MASTER_ADDRESS": master,
        "PERILUNE_ADVERTISE": advertise,
        "PERILUNE_HOME": str(home) if home else None,
        "PERILUNE_MODEL": str(model) if model else None,
        "PERILUNE_LOG_LEVEL": log_level,
    }
    os.environ.update({key: value for key, value in settings.items() if value is not None})
    if service is ServiceName.MASTER:
        os.environ.setdefault("PERILUNE_HTTP_LISTEN", "127.0.0.1:7080")  # the web page
    if service is ServiceName.NATS:
        serving.exec_nats()
    serving.exec_module(SERVICE_MODULES.get(service, f"services.{service}"), [], {})


@app.command()
def doctor(home: Home = DEFAULT_HOME, master: Master = None, as_json: AsJson = False) -> None:
    """Check this machine: what is missing for which service, and how to get it. With --master: running services."""
    from perilune import doctor as examination

    findings = examination.examine_cluster(master) if master else examination.examine(home)
    if as_json:
        print(json.dumps([finding.as_json() for finding in findings], indent=2))
    else:
        from rich.console import Console

        subject = f"a run on {master}" if master else "`perilune train`"
        Console(highlight=False).print(examination.render(findings, subject))
    _exit(0 if examination.can_train(findings) else 1)


def _exit(status: int) -> None:
    raise typer.Exit(status)
