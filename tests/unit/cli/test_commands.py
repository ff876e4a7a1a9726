"""The command line as a user meets it: quick help, one message for a mistake, the right exit status."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

from perilune.api.master.v1.master_pb2 import Run, RunState
from perilune.cli.report import Report
from perilune.cli.training import RunTarget, _verdict, evaluation_recipe, iterations_in
from perilune.errors import (
    InvalidInputError,
    MissingDependencyError,
    NotFoundError,
    PeriluneError,
    RecipeError,
    SettingsError,
    verdict,
)
from perilune.recipe import check_recipe
from tests.unit.test_recipe import minimal

pytestmark = pytest.mark.slow  # trains, or starts services and processes

REPOSITORY = Path(__file__).parent.parent.parent.parent
PERILUNE = Path(sys.executable).with_name("perilune")


def perilune(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PERILUNE, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=REPOSITORY,
        env=os.environ | environment,
    )


def test_help_answers_without_importing_what_is_heavy() -> None:
    program = "import sys; sys.argv = ['perilune', '--help']; import perilune.cli\n"
    program += (
        "try: perilune.cli.main()\nfinally: print(sorted({'grpc', 'pydantic', 'torch', 'nats'} & set(sys.modules)))"
    )
    started = time.process_time()
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.rstrip().endswith("[]")
    for command in ("train", "eval", "stages", "serve", "run", "ledger", "doctor", "recipe"):
        assert f" {command} " in done.stdout
    assert time.process_time() - started < 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train", "nowhere.toml"], "perilune: cannot read the recipe nowhere.toml: No such file or directory"),
        (["run", "show", "x", "--home", "nowhere"], "perilune: there are no runs in nowhere"),
        (["run", "stop", "x", "--home", "nowhere"], "perilune: no services run on nowhere"),
        (
            ["serve", "nats", "--listen", "0.0.0.0:4222"],
            "perilune: nats would listen on 0.0.0.0:4222 with no authentic",
        ),
    ],
)
def test_a_mistake_is_one_message_and_exit_status_1(tmp_path: Path, arguments: list[str], said: str) -> None:
    done = perilune(*arguments)
    assert done.returncode == 1
    assert done.stderr.startswith(said)
    assert done.stdout == ""


@pytest.mark.parametrize("arguments", [["trian"], ["train"], ["serve", "webserver"], ["train", "x", "--rollouts", "0"]])
def test_a_wrong_command_line_is_exit_status_2(arguments: list[str]) -> None:
    done = perilune(*arguments)
    assert done.returncode == 2
    assert "Usage: perilune" in done.stderr


def test_a_home_that_was_never_used_has_no_runs_and_is_not_made(tmp_path: Path) -> None:
    home = tmp_path / "never"
    assert json.loads(perilune("run", "list", "--home", home, "--json").stdout) == []
    assert "no runs in" in perilune("run", "list", "--home", home).stdout
    assert not home.exists()


def test_serve_nats_is_a_server_that_stores_in_the_home_and_keeps_it_from_others(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [PERILUNE, "serve", "nats", "--listen", f"127.0.0.1:{port}", "--home", tmp_path]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stderr
            started = next(line for line in server.stderr if "Server is ready" in line or "perilune:" in line)
            assert "Server is ready" in started
            assert (tmp_path / "nats" / "jetstream").is_dir()
            refused = perilune("train", "recipes/search.toml", "--home", tmp_path, "--no-view")
            assert refused.returncode == 1
            assert f"another perilune (process {server.pid}) works in {tmp_path}" in refused.stderr
        finally:
            server.terminate()


SMALL = """
name = "small"
model.create = { task = "search", max_positions = 128 }
prompts = { source = "task", name = "search" }
rollout.max_tokens = 72
reward.graders = [{ name = "exact" }]
trainer.num_iterations = 3
"""


def test_recipe_check_prints_the_recipe_with_its_defaults_as_toml(tmp_path: Path) -> None:
    path, again = tmp_path / "small.toml", tmp_path / "again.toml"
    path.write_text(SMALL)
    printed = perilune("recipe", "check", path, "--set", "trainer.objective.tau=0.5").stdout
    document = tomllib.loads(printed)
    assert (document["trainer"]["objective"]["tau"], document["rollout"]["group_size"]) == (0.5, 8)
    again.write_text(printed)
    assert perilune("recipe", "check", again).stdout == printed
    assert json.loads(perilune("recipe", "check", again, "--json").stdout)["trainer"]["objective"]["tau"] == 0.5


@pytest.mark.parametrize("command", [["recipe", "check"], ["train"]])
def test_a_recipe_that_cannot_run_here_is_refused_before_anything_starts(tmp_path: Path, command: list[str]) -> None:
    path = tmp_path / "small.toml"
    path.write_text(SMALL)
    home = tmp_path / "home"
    overrides = ["reward.graders.0.name=exakt", "rollout.max_tokens=128", "trainer.objective.taw=1"]
    options = [argument for override in overrides for argument in ("--set", override)]
    done = perilune(*command, path, *options, PERILUNE_HOME=str(home))
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.splitlines()[0] == f"perilune: {path} has 3 mistakes:"
    assert [line.partition(": ")[0] for line in done.stderr.splitlines()[1:]] == [
        "  trainer.objective.taw",
        "  rollout.max_tokens",
        "  reward.graders.0.name",
    ]
    assert not home.exists()


def test_an_evaluation_is_the_recipe_without_stages_and_iterations() -> None:
    recipe = check_recipe(
        minimal(
            stages=[{"type": "warmup", "task": "search"}], model={"create": {"task": "search"}, "dtype": "bfloat16"}
        )
    )
    changed = evaluation_recipe(recipe, "runs/x/model")
    assert (changed.name, changed.model.path, changed.model.create) == ("small-eval", "runs/x/model", None)
    assert changed.model.dtype == "bfloat16"
    assert (changed.stages, changed.trainer.num_iterations) == ([], 0)
    assert (changed.prompts, changed.reward, changed.evaluation) == (recipe.prompts, recipe.reward, recipe.evaluation)


def test_an_evaluation_takes_the_recipes_own_model_or_asks_for_one() -> None:
    assert evaluation_recipe(check_recipe(minimal()), None).model.path == "somewhere"
    with pytest.raises(InvalidInputError, match="say with --model which one"):
        evaluation_recipe(check_recipe(minimal(model={"create": {"task": "search"}})), None)


def test_an_evaluation_renders_prompts_as_the_recipe_says() -> None:
    model = {"path": "somewhere", "chat_template": "{{ messages }}", "template_arguments": {"style": "="}}
    assert evaluation_recipe(check_recipe(minimal(model=model)), None).model == check_recipe(minimal(model=model)).model


def test_a_run_that_goes_on_is_given_more_iterations_and_nothing_else() -> None:
    assert iterations_in([]) == 0
    assert iterations_in(["trainer.num_iterations=40"]) == 40
    for wrong, said in (
        ("trainer.objective.tau=1", "kept as it ran"),
        ("trainer.num_iterations=x", "a positive number"),
    ):
        with pytest.raises(InvalidInputError, match=said):
            iterations_in([wrong])


@pytest.mark.parametrize(
    ("error", "helps"),
    [
        (RecipeError("rollout.max_tokens: too many"), False),
        (NotFoundError("no model in /data/m"), True),
        (MissingDependencyError("no vllm"), True),
        (SettingsError("PERILUNE_HYBRID"), True),
    ],
)
def test_resuming_is_advised_only_where_it_can_help(error: PeriluneError, helps: bool) -> None:
    run = Run(id="r", state=RunState.RUN_STATE_FAILED, reason=verdict(error))
    with pytest.raises(PeriluneError) as raised:
        _verdict(Report(run), RunTarget(Path("runs"), None, None, 1), interrupted=False)
    assert str(error) in str(raised.value)
    assert ("perilune run resume r" in str(raised.value)) is helps
    assert ("start a new run" in str(raised.value)) is not helps


def test_doctor_finds_all_that_train_needs_in_this_environment(tmp_path: Path) -> None:
    done = perilune("doctor", "--home", tmp_path / "new", "--json")
    findings = {(finding["area"], finding["name"]): finding for finding in json.loads(done.stdout)}
    assert done.returncode == 0, done.stdout
    assert findings["bus", "nats-server"]["ok"]
    assert {area for area, name in findings if name == "packages"} == {"master", "rollout", "trainer", "reward"}
    looked_at = {("gpu", "card, driver"), ("gpu", "torch's build"), ("sandbox", "isolation"), ("tools", "docker")}
    assert looked_at | {("tools", "browser"), ("engines", "vllm"), ("engines", "sglang")} <= findings.keys()
    assert all(finding["ok"] or finding["remedy"] for finding in findings.values())
