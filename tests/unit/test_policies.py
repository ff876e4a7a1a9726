"""A policy's name: where it is written, where it is not, and what is none."""

from __future__ import annotations

import pytest

from perilune.api.trajectory.v1.trajectory_pb2 import PolicyVersion
from perilune.errors import InvalidInputError
from perilune.policies import check_policy_name, policy_name, policy_version, shown_version, version_as_json
from perilune.runtime.subjects import is_prompt_subject, prompt_subject, rollout_consumer, run_of

PLAIN, CRITIC = policy_version(3, "d"), policy_version(3, "d", "critic")


def test_the_default_name_is_not_written() -> None:
    assert policy_version(3, "d", "policy") == PLAIN == PolicyVersion(number=3, digest="d")
    assert [policy_name(each) for each in (PLAIN, CRITIC, PolicyVersion(name="policy"))] == [
        "policy",
        "critic",
        "policy",
    ]
    assert [shown_version(each) for each in (PLAIN, CRITIC)] == ["v3", "critic v3"]
    assert version_as_json(PLAIN) == {"version": 3, "digest": "d"}
    assert version_as_json(CRITIC) == {"version": 3, "digest": "d", "policy": "critic"}


@pytest.mark.parametrize("name", ["", "-a", "A", "a_b", "a.b", "a b", "*", "é", "../a", "a\n", "²", "a" * 33])
def test_what_is_no_name(name: str) -> None:
    with pytest.raises(InvalidInputError, match="no name of a policy: use up to 32"):
        check_policy_name(name)
    if name:
        with pytest.raises(InvalidInputError):
            prompt_subject("run", PolicyVersion(name=name))


@pytest.mark.parametrize("name", ["policy", "0", "a-b", "a" * 32])
def test_what_is_a_name(name: str) -> None:
    check_policy_name(name)


def test_each_policy_of_a_run_has_its_own_prompts() -> None:
    assert prompt_subject("run") == prompt_subject("run", PLAIN) == "perilune.run.prompt"
    assert prompt_subject("run", CRITIC) == "perilune.run.prompt.critic"
    assert rollout_consumer("run", PLAIN) == rollout_consumer("run")
    assert rollout_consumer("run", CRITIC).subject == prompt_subject("run", CRITIC)
    assert rollout_consumer("run", CRITIC).durable != rollout_consumer("run-critic").durable
    assert run_of(prompt_subject("run", CRITIC)) == "run"
    prompts = [prompt_subject("run"), prompt_subject("run", CRITIC)]
    assert list(filter(is_prompt_subject, [*prompts, "perilune.prompt.event", "perilune.run.prompt.a.b"])) == prompts
