"""Services, and the machine that they run on."""

from __future__ import annotations

import json
import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from perilune.cli.commands.options import DEFAULT_HOME, AsJson, Home, Master, end

app = typer.Typer()


class ServiceName(StrEnum):
    """The services that `perilune serve` starts."""

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


@app.command()
def serve(
    service: Annotated[ServiceName, typer.Argument(help="Which one.")],
    source: Annotated[
        str | None,
        typer.Argument(metavar="[MODEL]", help="For model and reward-model: a folder; for model also a hub's id."),
    ] = None,
    listen: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="Where to answer; port 0: any.")] = None,
    nats: Annotated[str | None, typer.Option(metavar="URL", help="The NATS server.")] = None,
    master: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="The master.")] = None,
    advertise: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="How others reach this service.")] = None,
    home: Annotated[Path | None, typer.Option(help="The folder of runs, logs and the database.")] = None,
    model: Annotated[str | None, typer.Option(metavar="DIR", help="The same as MODEL.")] = None,
    name: Annotated[str | None, typer.Option(help="For model: what callers ask for; its folder's name.")] = None,
    engine: Annotated[
        str | None, typer.Option(metavar="torch|vllm|sglang", help="For model: what serves it; torch.")
    ] = None,
    http: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Where to answer HTTP; of model 127.0.0.1:8000.")
    ] = None,
    log_level: Annotated[str | None, typer.Option(help="DEBUG, INFO, WARNING or ERROR.")] = None,
) -> None:
    """Run one service in this process. What is not given comes from PERILUNE_* variables.

    `perilune serve model MODEL` answers OpenAI's API for a model that no run trains (docs/endpoint.md).
    """
    from perilune.cli import serving

    if source and service not in (ServiceName.MODEL, ServiceName.REWARD_MODEL):
        raise typer.BadParameter(f"{service} takes no model: {source}")

    settings = {
        "PERILUNE_LISTEN": listen,
        "PERILUNE_NATS_URL": nats,
        "PERILUNE_MASTER_ADDRESS": master,
        "PERILUNE_ADVERTISE": advertise,
        "PERILUNE_HOME": str(home) if home else None,
        "PERILUNE_MODEL": source or model,
        "PERILUNE_MODEL_NAME": name,
        "PERILUNE_ENGINE": engine,
        "PERILUNE_HTTP_LISTEN": http,
        "PERILUNE_LOG_LEVEL": log_level,
    }
    os.environ.update({key: value for key, value in settings.items() if value is not None})
    if service is ServiceName.MASTER:
        os.environ.setdefault("PERILUNE_HTTP_LISTEN", "127.0.0.1:7080")  # the web page
    if service is ServiceName.NATS:
        serving.exec_nats()
    serving.exec_module(SERVICE_MODULES.get(service, f"services.{service}"), [], {})


@app.command()
def doctor(
    home: Home = DEFAULT_HOME,
    master: Master = None,
    recipe: Annotated[
        Path | None, typer.Option(metavar="RECIPE", help="Also look at what this recipe needs of the machine.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check this machine: what is missing for which service, and how to get it. With --master: running services."""
    from perilune.local import doctor as examination

    findings = examination.examine_cluster(master) if master else examination.examine(home, recipe)
    if as_json:
        print(json.dumps([finding.as_json() for finding in findings], indent=2))
    else:
        from perilune.cli.console import Console
        from perilune.cli.report import print_unbroken

        subject = f"a run on {master}" if master else "`perilune train`"
        print_unbroken(Console(highlight=False), examination.render(findings, subject))
    end(0 if examination.can_train(findings) else 1)
