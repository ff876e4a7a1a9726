"""A run that is broken off and taken up again is the same run, to the bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from perilune.api.trajectory.v1.trajectory_pb2 import PolicyVersion
from perilune.errors import InvalidInputError, NotFoundError, PeriluneError, StateError
from perilune.recipe import Recipe
from services.trainer.learner import never
from services.trainer.policy.sources import load_policy
from services.trainer.ranks.group import Ranks
from services.trainer.session import Session
from services.trainer.versions.background import BackgroundWriter
from tests.unit.trainer.messages import batch
from tests.unit.trainer.models import recipe, same_bits, state, tiny_policy


def _session(folder: Path, table: Recipe, committed: PolicyVersion | None = None) -> Session:
    return Session.open(table, folder, committed, never)


def test_several_ranks_refuse_to_train_an_adapter(tmp_path: Path) -> None:
    table = recipe(adapter={"rank": 2, "alpha": 4, "targets": ["q_proj"]})
    with pytest.raises(InvalidInputError, match="2 ranks"):
        Session.open(table, tmp_path, None, never, ranks=Ranks(0, 2))


def _train(session: Session, num_iterations: int) -> None:
    for _ in range(num_iterations):
        session.train(batch(session.number, session.published.policy))
        session.checkpoint()


HELD = {"objective": {"type": "grpo", "kl_weight": 0.5}}  # to version 0


@pytest.mark.slow
@pytest.mark.parametrize("keys", [{}, {"optimizer": "sgd"}, HELD])
def test_two_iterations_are_one_and_one(tmp_path: Path, keys: dict[str, Any]) -> None:
    table = recipe(steps_per_iteration=2, num_threads=1, **keys)
    straight = _session(tmp_path / "a", table)
    _train(straight, 2)

    first = _session(tmp_path / "b", table)
    _train(first, 1)
    again = _session(tmp_path / "b", table, committed=first.published.policy)
    assert again.published.policy == first.published.policy
    _train(again, 1)

    assert again.published.policy == straight.published.policy
    assert same_bits(state(again._learner.policy), state(straight._learner.policy))


@pytest.mark.slow
@pytest.mark.parametrize("adapter", [None, {"rank": 2, "targets": ["q_proj"]}])
def test_checkpoints_that_are_written_beside_training_are_the_same(tmp_path: Path, adapter: Any) -> None:
    """As on a card: training goes on while the checkpoint before is written."""
    table = recipe(num_threads=1, adapter=adapter)
    straight = _session(tmp_path / "a", table)
    _train(straight, 3)
    first = _session(tmp_path / "b", table)
    first._writer = BackgroundWriter()
    _train(first, 2)
    first._writer.wait()
    again = _session(tmp_path / "b", table, committed=first.published.policy)
    _train(again, 1)
    assert again.published.policy == straight.published.policy
    assert same_bits(state(again._learner.policy), state(straight._learner.policy))


def test_an_adapter_is_held_to_its_base_after_a_restart_too(tmp_path: Path) -> None:
    adapter = {"rank": 2, "targets": ["q_proj"]}
    table = recipe(adapter=adapter, learning_rate=0.01, num_threads=1, **HELD)
    straight = _session(tmp_path / "a", table)
    _train(straight, 2)
    first = _session(tmp_path / "b", table)
    _train(first, 1)
    again = _session(tmp_path / "b", table, committed=first.published.policy)
    _train(again, 1)
    assert again.metrics["frozen_kl"] == straight.metrics["frozen_kl"] > 0


def test_the_frozen_policy_may_be_a_model_of_the_same_tokenizer(tmp_path: Path) -> None:
    tiny_policy(seed=5, hidden_size=16).save(tmp_path / "other")
    held = {"type": "grpo", "kl_weight": 0.5, "frozen_model": str(tmp_path / "other")}
    session = _session(tmp_path / "run", recipe(num_threads=1, objective=held))
    _train(session, 1)
    assert session.metrics["frozen_kl"] > 0.01  # another policy than version 0
    again = _session(tmp_path / "run", recipe(num_threads=1, objective=held), committed=session.published.policy)
    assert again._learner._frozen is not None


def test_a_frozen_policy_that_cannot_be_compared_with_is_refused(tmp_path: Path) -> None:
    tiny_policy(task="arithmetic").save(tmp_path / "arithmetic")
    tiny_policy(max_positions=64).save(tmp_path / "short")
    for name, said in (("arithmetic", "another tokenizer"), ("short", "fewer tokens"), ("absent", "cannot load")):
        held = {"type": "grpo", "kl_weight": 0.5, "frozen_model": str(tmp_path / name)}
        with pytest.raises(PeriluneError, match=f"trainer.objective.frozen_model: .*{said}"):
            _session(tmp_path / "run", recipe(objective=held))


def test_a_version_whose_commit_was_lost_is_taken_up(tmp_path: Path) -> None:
    session = _session(tmp_path, recipe(num_threads=1))
    before = session.published.policy
    _train(session, 1)
    again = _session(tmp_path, recipe(num_threads=1), committed=before)
    assert again.published.policy == session.published.policy
    assert again.metrics["num_samples"] == 12
    # One that runs further ahead belongs to no history the master knows.
    _train(session, 1)
    again = _session(tmp_path, recipe(num_threads=1), committed=before)
    assert again.number == 1


def test_tokens_of_earlier_versions_are_known_after_a_restart(tmp_path: Path) -> None:
    session = _session(tmp_path, recipe(num_threads=1))
    first = session.published.policy
    _train(session, 2)
    again = _session(tmp_path, recipe(num_threads=1), committed=session.published.policy)
    again.train(batch(2, first))
    with pytest.raises(InvalidInputError, match="never published"):
        again.train(batch(3, PolicyVersion(number=1, digest="x")))


def test_the_first_and_the_last_two_versions_are_kept(tmp_path: Path) -> None:
    session = _session(tmp_path, recipe(num_threads=1))
    (tmp_path / "checkpoints" / "v000009.writing").mkdir()  # of a process that died
    _train(session, 4)
    names = sorted(folder.name for folder in (tmp_path / "checkpoints").iterdir() if "writing" not in folder.name)
    assert names == ["v000000", "v000003", "v000004"]
    assert session.model_path == str(tmp_path / "checkpoints" / "v000004")
    assert _session(tmp_path, recipe(num_threads=1), committed=session.published.policy).number == 4


def test_the_last_version_is_written_even_between_checkpoints(tmp_path: Path) -> None:
    table = recipe(num_threads=1, checkpoint_every=3)
    session = _session(tmp_path, table)
    paths = []
    for _ in range(4):
        _train(session, 1)
        paths.append(Path(session.model_path).name)
    assert paths == ["", "", "v000003", "v000004"]


def test_what_is_not_here_or_not_ours_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="PERILUNE_HOME"):
        _session(tmp_path, recipe(), committed=PolicyVersion(number=3, digest="x"))
    _session(tmp_path, recipe())
    other = recipe(model={"create": {"task": "search", "hidden_size": 16, "num_layers": 1}})
    with pytest.raises(InvalidInputError, match="another run id"):
        _session(tmp_path, other)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("trainer.pt", None),
        ("trainer.pt", b"PK\x03\x04 cut short"),
        ("model.safetensors", b"\x08\x00"),
        ("config.json", b"{"),
        ("tokenizer.json", b"[]"),
    ],
)
def test_a_damaged_checkpoint_is_said_in_words(tmp_path: Path, name: str, content: bytes | None) -> None:
    _session(tmp_path, recipe())
    file = tmp_path / "checkpoints" / "v000000" / name
    file.unlink() if content is None else file.write_bytes(content)
    with pytest.raises((StateError, NotFoundError), match=str(file.parent)):
        _session(tmp_path, recipe())


def test_a_checkpoint_that_cannot_be_written_is_said_in_words(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("a file in the way")
    with pytest.raises(StateError, match=r"cannot write the checkpoint .*v000000: .*resume the run"):
        _session(tmp_path, recipe())


def test_weights_that_are_missing_are_not_made_up(tmp_path: Path) -> None:
    policy = tiny_policy()
    weights = state(policy)
    weights.pop("model.layers.1.mlp.up_proj.weight")
    policy.save(tmp_path, weights)
    with pytest.raises(InvalidInputError, match=r"lack 1 of the weights .* model.layers.1.mlp.up_proj.weight"):
        load_policy(str(tmp_path))
