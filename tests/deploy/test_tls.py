"""What deploy/secrets/make.sh makes, with real services: a run over TLS, and each secret when it is wrong."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import nats
import pytest
import trustme
import yaml

from perilune.api.master.v1.master_pb2 import RunState
from perilune.errors import UnauthenticatedError
from perilune.recipe import load_recipe
from tests.deploy.installation import DEPLOY, PATIENCE_S, REPOSITORY, Installation

QUICK = [
    "stages.0.num_steps=20",
    "trainer.num_iterations=2",
    "rollout.prompts_per_iteration=4",
    "evaluation.num_problems=8",
]


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    made = Installation(tmp_path_factory.mktemp("installation"))
    made.make_secrets()
    made.start_nats()
    ready = made.folder / "ready"
    master = made.start("master", PERILUNE_READY_FILE=str(ready))
    while not ready.exists():
        assert master.poll() is None, made.log_of("master").read_text()
        with contextlib.suppress(subprocess.TimeoutExpired):
            master.wait(0.05)
    yield made
    made.stop()


@pytest.mark.timeout(900)
async def test_a_run_goes_from_end_to_end_over_tls(installation: Installation) -> None:
    """Two rollout workers: the second gets its weights from the first, by an address that no certificate names."""
    workers = [installation.start(service) for service in ("trainer", "rollout", "rollout", "reward")]
    recipe = load_recipe(str(REPOSITORY / "recipes" / "search.toml"), QUICK)
    async with installation.client() as client, asyncio.timeout(PATIENCE_S):
        run = await client.submit(recipe, "secret")
        async for snapshot in client.watch("secret"):
            run = snapshot.run
    for worker in workers:
        worker.kill()
    assert run.state == RunState.RUN_STATE_FINISHED, run.reason
    assert run.ledger.balanced
    assert run.ledger.trained == 2 * 4 * 8
    assert "Permissions Violation" not in (installation.folder / "nats.log").read_text()


async def test_who_has_no_token_is_turned_away_and_a_role_is_what_it_says(installation: Installation) -> None:
    async with installation.client() as client:
        await client.list()
    (installation.secrets / "token_nobody").write_text("perilune-nobody")
    async with installation.client("nobody") as client:
        with pytest.raises(UnauthenticatedError):
            await client.list()


WRONG = {  # what is wrong with the reward service's settings: which it is to name
    "PERILUNE_TOKEN_FILE": "a token that nobody knows",
    "PERILUNE_NATS_PASSWORD_FILE": "a password that nobody knows",
}


@pytest.mark.parametrize("setting", WRONG)
async def test_a_wrong_secret_ends_a_service_at_once_with_its_name(installation: Installation, setting: str) -> None:
    wrong = installation.folder / "wrong"
    wrong.write_text(WRONG[setting])
    process = installation.start("reward", **{setting: str(wrong)})
    assert await installation.end_of(process) == 2
    assert setting in installation.log_of("reward").read_text()


@pytest.mark.parametrize("service", ["reward", "master"])
async def test_a_foreign_authority_ends_a_service_at_once_with_its_name(
    installation: Installation, service: str, tmp_path: Path
) -> None:
    foreign = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(str(foreign))
    changes = {"PERILUNE_TLS_CA": str(foreign), "PERILUNE_HOME": str(tmp_path), "PERILUNE_LISTEN": "127.0.0.1:0"}
    process = installation.start(service, **changes)
    assert await installation.end_of(process) == 2
    assert "PERILUNE_TLS_CA" in installation.log_of(service).read_text()


async def test_a_secret_that_is_not_there_ends_a_service_at_once_with_its_name(installation: Installation) -> None:
    process = installation.start("reward", PERILUNE_NATS_PASSWORD_FILE=str(installation.folder / "nowhere"))
    assert await installation.end_of(process) == 2
    assert "PERILUNE_NATS_PASSWORD_FILE" in installation.log_of("reward").read_text()


# What each service publishes, and where it takes messages from: all else that there is on the bus is refused.
DOES = {
    "trainer": ["perilune.run.event"],
    "rollout": [
        *("perilune.run.trajectory.finished", "perilune.run.trajectory.partial", "perilune.run.sample"),
        *("perilune.run.event", "perilune.dead", "perilune.run.trial.7"),
        *("$JS.API.CONSUMER.MSG.NEXT.PROMPTS.rollout-run", "$JS.ACK.PROMPTS.rollout-run.1.1.1.1.1"),
        "$JS.API.STREAM.MSG.GET.TRIALS",
    ],
    "reward": [
        *("perilune.run.trajectory.scored", "perilune.run.event", "perilune.dead"),
        *("$JS.API.CONSUMER.MSG.NEXT.TRAJECTORIES.reward", "$JS.ACK.TRAJECTORIES.reward.1.1.1.1.1"),
    ],
}
OF_THE_MASTER = [
    *("perilune.run.prompt", "perilune.run.prompt.teacher", "$JS.ACK.TRAJECTORIES.master.1.1.1.1.1"),
    *("$JS.API.CONSUMER.MSG.NEXT.TRAJECTORIES.master", "$JS.API.CONSUMER.MSG.NEXT.DEAD.master-dead"),
    *("$JS.API.STREAM.CREATE.OWN", "$JS.API.STREAM.DELETE.PROMPTS", "$JS.API.STREAM.PURGE.TRAJECTORIES"),
    *("$JS.API.STREAM.MSG.DELETE.SAMPLES", "$JS.API.STREAM.MSG.GET.PROMPTS", "$JS.API.DIRECT.GET.SAMPLES"),
    *("$JS.API.CONSUMER.CREATE.PROMPTS.own", "$JS.API.CONSUMER.DURABLE.CREATE.TRAJECTORIES.own"),
    *("$JS.API.CONSUMER.DELETE.TRAJECTORIES.reward", "$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.PROMPTS.x"),
    *("_INBOX.reward.forged", "_INBOX.rollout.forged", "_INBOX.master.forged", "elsewhere"),
]
READ = [">", "perilune.>", "$JS.>", "_INBOX.>", *(f"_INBOX.{user}.>" for user in ("master", *DOES))]


async def refused_of(installation: Installation, user: str, publish: list[str], subscribe: list[str]) -> set[str]:
    """The subjects of those that the server does not let a service's user use."""
    errors: list[str] = []

    async def on_error(error: Exception) -> None:
        errors.append(str(error))

    trust = ssl.create_default_context(cafile=str(installation.secrets / "ca.pem"))
    password = (installation.secrets / f"nats_{user}").read_text().strip()
    url = f"tls://localhost:{installation.nats_port}"
    client = await nats.connect(url, tls=trust, user=user, password=password, error_cb=on_error)
    for subject in publish:
        await client.publish(subject, b"")
    for subject in subscribe:
        await client.subscribe(subject)
    await client.flush()
    await asyncio.sleep(0.2)
    await client.close()
    words = "\n".join(errors).lower()
    return {subject for subject in [*publish, *subscribe] if f'to "{subject.lower()}"' in words}


@pytest.mark.parametrize("user", DOES)
async def test_nats_lets_a_service_do_what_it_does_and_no_more(installation: Installation, user: str) -> None:
    others = {subject for subjects in (*DOES.values(), OF_THE_MASTER) for subject in subjects} - set(DOES[user])
    foreign = [subject for subject in READ if subject != f"_INBOX.{user}.>"]
    allowed = await refused_of(installation, user, DOES[user], [f"_INBOX.{user}.>"])
    assert allowed == set()
    assert await refused_of(installation, user, sorted(others), foreign) == others | set(foreign)


async def test_not_even_the_master_reads_what_others_are_sent(installation: Installation) -> None:
    """Nor does it answer in another's place."""
    publish = [*OF_THE_MASTER, *DOES["rollout"], *DOES["reward"]]
    forbidden = {each for each in publish if not each.startswith(("perilune.", "$JS.API.", "$JS.ACK."))}
    foreign = [subject for subject in READ if subject != "_INBOX.master.>"]
    found = await refused_of(installation, "master", publish, foreign)
    assert found == forbidden | set(foreign)


def test_every_service_asks_who_calls_once_the_override_is_there() -> None:
    override = yaml.safe_load((DEPLOY / "compose.tls.yml").read_text())
    plain = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text())
    open_ones = {
        name
        for name, service in plain["services"].items()
        if service.get("environment", {}).get("PERILUNE_ALLOW_UNAUTHENTICATED") == "1"
    }
    closed = {
        name
        for name, service in override["services"].items()
        if service.get("environment", {}).get("PERILUNE_ALLOW_UNAUTHENTICATED") == "0"
    }
    assert open_ones - {"submit"} == closed  # `submit` is a client
    sandbox = {
        secret if isinstance(secret, str) else secret["source"] for secret in override["services"]["sandbox"]["secrets"]
    }
    assert sandbox == {"tokens.toml", "sandbox.pem", "sandbox.key"}  # nothing that it could call anybody with


def test_secrets_that_are_there_stay(tmp_path: Path) -> None:
    made = Installation(tmp_path)
    made.make_secrets()
    before = contents(made.secrets)
    command = ["sh", str(DEPLOY / "secrets" / "make.sh"), "--tls"]
    subprocess.run(command, env={"SECRETS": str(made.secrets), "PATH": "/usr/bin:/bin"}, check=True)
    assert contents(made.secrets) == before


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
