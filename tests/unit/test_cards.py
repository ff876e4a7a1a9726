"""Which child gets which card and how much of it, on machines of every kind, as values."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from perilune.errors import InvalidInputError, SettingsError
from perilune.local import cards
from perilune.local.cards import CardPlan, Wanted, machine_from_json, plan_cards
from perilune.local.cluster import LocalCluster, turns_folder
from perilune.models.device import GIB, Card, Machine
from perilune.models.memory import Load, Shape

QWEN = Shape(28, 1536, 8960, 151936, 12, 2, 128, 32768, ties_embeddings=True)  # 1.5B
LARGE = Load(QWEN, trains_in_bf16=True, samples_in_bf16=True)  # 33.2 GiB to train, 7.3 to sample without a cache
TINY = Load(Shape(3, 128, 256, 45, 4, 4, 32, 128), max_running=512)


def machine(*free_gib: float) -> Machine:
    cards = tuple(Card(index, "H100", 80 * GIB, int(free * GIB)) for index, free in enumerate(free_gib))
    return Machine(cards, has_driver=True, torch_cuda="13.0")


def plan(machine: Machine, load: Load | None = None, **wanted: object) -> CardPlan:
    return plan_cards(machine, Wanted(**wanted), load, num_cpu_rollouts=2)  # type: ignore[arg-type]


def cards_of(plan: CardPlan) -> dict[str, str]:
    return {child: env["CUDA_VISIBLE_DEVICES"] for child, env in plan.env.items()}


def test_without_a_card_all_is_as_it_was_and_one_line_says_so() -> None:
    assert plan(Machine()) == CardPlan(2, lines=("computes on the CPU: no NVIDIA driver",))
    assert plan(machine(79), device="cpu") == CardPlan(2, lines=("computes on the CPU: PERILUNE_DEVICE=cpu",))
    assert plan(machine(1), num_rollouts=3).num_rollouts == 3
    assert "no card has room" in plan(machine(1)).lines[0]
    assert plan(Machine(), num_ranks=2).env == {}
    with pytest.raises(SettingsError, match="PERILUNE_DEVICE=cuda: no NVIDIA driver"):
        plan(Machine(), device="cuda")


@pytest.mark.parametrize(
    ("free_gib", "wanted", "visible"),
    [
        ([79], {}, {"trainer": "0", "rollout-1": "0"}),
        ([70, 79], {}, {"trainer": "1", "rollout-1": "0"}),
        ([79, 79, 79, 79], {}, {"trainer": "0", "rollout-1": "1", "rollout-2": "2", "rollout-3": "3"}),
        ([79] * 4, {"num_ranks": 2}, {"trainer": "0,1", "rollout-1": "2", "rollout-2": "3"}),
        ([79] * 2, {"num_ranks": 2}, {"trainer": "0,1", "rollout-1": "0"}),
        ([79] * 2, {"num_rollouts": 3}, {"trainer": "0", "rollout-1": "1", "rollout-2": "1", "rollout-3": "1"}),
        ([79, 1, 79], {}, {"trainer": "0", "rollout-1": "2"}),  # a full card is left alone
        ([79, 79], {"device": "cuda:1"}, {"trainer": "1", "rollout-1": "1"}),
        ([79, 79], {"visible": "5,7"}, {"trainer": "5", "rollout-1": "7"}),
        ([79, 79], {"visible": "GPU-a,GPU-b", "device": "cuda:1"}, {"trainer": "GPU-b", "rollout-1": "GPU-b"}),
        ([79, 79], {"takes_turns": True}, {"trainer": "0", "rollout-1": "0"}),
    ],
)
def test_ranks_get_a_card_each_and_workers_the_others(
    free_gib: list[float], wanted: dict[str, object], visible: dict[str, str]
) -> None:
    planned = plan(machine(*free_gib), **wanted)
    assert cards_of(planned) == visible
    assert planned.num_rollouts == len(visible) - 1
    device = "cuda" if "device" in wanted else "auto"
    assert {env["PERILUNE_DEVICE"] for env in planned.env.values()} == {device}


@pytest.mark.parametrize(
    ("free_gib", "wanted", "said"),
    [
        ([79], {"num_ranks": 2}, "2 ranks of the trainer are started here, and there are 1 card"),
        ([79, 1], {"num_ranks": 2}, "need a card each, and 1 of 2 have 2 GiB free"),
        ([79], {"device": "cuda:3"}, "there is no such card"),
        ([79, 79], {"num_ranks": 2, "device": "cuda:0"}, "2 ranks cannot share one card"),
    ],
)
def test_what_cannot_work_is_refused(free_gib: list[float], wanted: dict[str, object], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        plan(machine(*free_gib), **wanted)


def cache_gib(plan: CardPlan) -> list[float]:
    return [float(env["PERILUNE_KV_CACHE_GIB"]) for name, env in plan.env.items() if name.startswith("rollout")]


def test_keys_and_values_get_what_the_card_has_left() -> None:
    # 79 GiB x 0.9 = 71.1; the trainer takes 33.17, an engine 7.31 beside its keys and values.
    (shared,) = cache_gib(plan(machine(79), LARGE))
    assert shared == pytest.approx(71.1 - 33.17 - 7.31, abs=0.02)
    assert cache_gib(plan(machine(79, 79), LARGE)) == [pytest.approx(71.1 - 7.31, abs=0.02)]
    two = cache_gib(plan(machine(79), LARGE, num_rollouts=2))
    assert two == [pytest.approx((71.1 - 33.17) / 2 - 7.31, abs=0.02)] * 2
    # No more than all samples can use: 512 x 128 tokens x 768 values x 4 bytes.
    assert cache_gib(plan(machine(79), TINY)) == [pytest.approx(512 * 128 * 768 * 4 / GIB, abs=0.001)]


def test_rows_that_are_left_open_are_what_engines_leave() -> None:
    auto = replace(LARGE, row_tokens=None)
    planned = plan(machine(79), auto)
    # 79 - 7.31 for sampling - 19.75 for keys and values = 51.94 GiB; nine tenths of it are 46.75, 26.88 of them the
    # model and CUDA; so there are 19.87 for rows of 3.3 MB a token.
    budget = float(planned.env["trainer"]["PERILUNE_MEMORY_GIB"])
    assert budget == pytest.approx((26.88 + 6400 * 3297280 / GIB) / 0.9, abs=0.02)
    assert cache_gib(planned) == [pytest.approx(71.1 - 0.9 * budget - 7.31, abs=0.02)]
    assert "PERILUNE_MEMORY_GIB" not in plan(machine(79, 79), auto).env["trainer"]  # a card of its own
    assert "PERILUNE_MEMORY_GIB" not in plan(machine(42), auto).env["trainer"]  # in turns
    assert "PERILUNE_MEMORY_GIB" not in plan(machine(79), LARGE).env["trainer"]


def test_a_budget_of_the_users_stays() -> None:
    planned = plan(machine(79), LARGE, cache_gib=8.0)
    assert "PERILUNE_KV_CACHE_GIB" not in planned.env["rollout-1"]
    assert not planned.takes_turns
    assert plan(machine(79), LARGE, cache_gib=60.0).takes_turns


def test_an_unknown_model_is_given_cards_and_no_budget() -> None:
    assert "PERILUNE_KV_CACHE_GIB" not in plan(machine(79)).env["rollout-1"]


def test_one_engine_and_a_trainer_that_do_not_fit_side_by_side_take_turns() -> None:
    planned = plan(machine(42), LARGE)  # 37.8 to be used: 33.2 alone fits, beside an engine not
    assert planned.takes_turns
    assert cache_gib(planned) == [pytest.approx(37.8 - 7.31, abs=0.02)]
    assert "trainer and engine take turns on cuda:0" in planned.lines[-1]
    of_user = plan(machine(42), LARGE, takes_turns=True)  # in the folder that the user names
    assert not of_user.takes_turns
    assert cache_gib(of_user) == cache_gib(planned)


@pytest.mark.parametrize(
    ("free_gib", "load", "wanted", "said"),
    [
        ([42], LARGE, {"num_rollouts": 2}, "do not fit cuda:0 side by side (estimate)"),
        ([30, 30], LARGE, {"num_ranks": 2}, "do not fit cuda:0 side by side (estimate)"),
        (
            [34],
            LARGE,
            {},
            "needs about 33.2 GiB (estimate), and 30.6 GiB of cuda:0 can be used: set trainer.microbatch_tokens",
        ),
        ([20], LARGE, {}, "18.0 GiB of cuda:0 can be used: train an adapter"),
        ([79, 8], LARGE, {}, "cuda:1 has too little room for what samples there, about 7.3 GiB (estimate)"),
    ],
)
def test_what_does_not_fit_by_the_estimate_is_said_and_goes_on(
    free_gib: list[float], load: Load, wanted: dict[str, object], said: str
) -> None:
    planned = plan(machine(*free_gib), load, **wanted)
    assert not planned.takes_turns
    assert any(said in line for line in planned.lines), planned.lines


def test_an_adapter_is_not_trained_in_turns() -> None:
    adapter = replace(LARGE, has_adapter=True)
    assert not plan(machine(25), adapter).takes_turns


def test_a_machine_comes_back_from_the_json_that_another_process_prints() -> None:
    assert machine_from_json(json.dumps(asdict(machine(79, 12)))) == machine(79, 12)


def test_variables_are_read_or_refused() -> None:
    environ = {"PERILUNE_DEVICE": "cuda:1", "CUDA_VISIBLE_DEVICES": "2,3", "PERILUNE_KV_CACHE_GIB": "2.5"}
    assert Wanted.of_environment(environ, 1, 2) == Wanted(1, 2, "cuda:1", "2,3", 2.5)
    for wrong in ({"PERILUNE_DEVICE": "tpu"}, {"PERILUNE_KV_CACHE_GIB": "much"}):
        with pytest.raises(InvalidInputError):
            Wanted.of_environment(wrong)


def test_a_torch_that_cannot_be_asked_is_a_reason_and_no_driver_asks_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cards, "has_driver", lambda: False)
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    assert cards.ask_machine() == Machine()
    monkeypatch.setattr(cards, "has_driver", lambda: True)
    assert "torch does not describe the machine" in plan(cards.ask_machine()).lines[0]
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    assert "it ended with status 1" in cards.ask_machine().error


def test_the_cluster_gives_its_children_what_the_plan_says(tmp_path: Path) -> None:
    planned = replace(plan(machine(42), LARGE), num_rollouts=1)
    cluster = LocalCluster(tmp_path, 0, "127.0.0.1:7080", planned, 1, print)
    trainer, rollout, reward = cluster._workers
    assert trainer.env["CUDA_VISIBLE_DEVICES"] == rollout.env["CUDA_VISIBLE_DEVICES"] == "0"
    assert trainer.env["PERILUNE_HYBRID"] == rollout.env["PERILUNE_HYBRID"] == str(turns_folder(tmp_path))
    assert rollout.env["PERILUNE_KV_CACHE_GIB"] == planned.env["rollout-1"]["PERILUNE_KV_CACHE_GIB"]
    assert not {"PERILUNE_HYBRID", "CUDA_VISIBLE_DEVICES"} & reward.env.keys()
    on_cpu = LocalCluster(tmp_path, 0, "127.0.0.1:7080", plan(Machine()), 1, print)
    assert not any("CUDA_VISIBLE_DEVICES" in child.env for child in on_cpu._workers)
