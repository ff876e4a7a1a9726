"""The same seed, the same faults; no fault that a deployment does not offer."""

from __future__ import annotations

from typing import Any

import pytest

from perilune.chaos.kinds import KINDS
from perilune.chaos.malformed import malformed
from perilune.chaos.plan import plan
from perilune.errors import InvalidInputError


class Offers:
    """What a deployment offers; nothing is inflicted here."""

    def __init__(self, services: list[str], links: list[str] | None = None, stores: list[str] | None = None) -> None:
        self.services, self.links, self.stores = services, links or [], stores or []


ALL: Any = Offers(["nats", "master", "trainer"], ["trainer>nats"], ["database", "bus"])


def test_the_same_seed_gives_the_same_faults_and_a_longer_plan_begins_like_a_shorter_one() -> None:
    faults = plan(7, 300, ALL)
    assert faults == plan(7, 300, ALL)
    assert faults[:20] == plan(7, 20, ALL)
    assert faults != plan(8, 300, ALL)
    assert [fault.number for fault in faults] == list(range(1, 301))
    assert {fault.kind for fault in faults} == set(KINDS)


def test_a_fault_lasts_as_long_as_its_kind_may() -> None:
    for fault in plan(1, 300, ALL, longest_s=5):
        assert (1 <= fault.duration_s <= 5) if KINDS[fault.kind].lasts else fault.duration_s == 0
        assert 0 <= fault.pause_s <= 4


def test_kinds_and_targets_can_be_chosen() -> None:
    faults = plan(3, 50, ALL, kinds=["kill", "partition"], targets=["master", "trainer>nats"])
    assert {(fault.kind, fault.target) for fault in faults} == {("kill", "master"), ("partition", "trainer>nats")}


def test_what_cannot_be_is_refused_by_name() -> None:
    without_links: Any = Offers(["nats"])
    with pytest.raises(InvalidInputError, match="no such kind of fault: storm; there are kill, stop"):
        plan(0, 1, ALL, kinds=["storm"])
    with pytest.raises(InvalidInputError, match="cannot have the faults partition"):
        plan(0, 1, without_links, kinds=["partition"])
    with pytest.raises(InvalidInputError, match="no fault hits nast; there are nats"):
        plan(0, 1, without_links, targets=["nast"])
    assert plan(0, 0, without_links, targets=["nast"]) == []


def test_malformed_messages_reach_every_subject_and_name_no_sample_of_the_run() -> None:
    found = malformed(3, "sums")
    assert found == malformed(3, "sums")
    assert {message.subject for message in found} == {
        *(f"perilune.sums.{kind}" for kind in ("prompt", "sample", "event")),
        *(f"perilune.sums.trajectory.{kind}" for kind in ("finished", "partial", "scored")),
        "perilune.dead",
    }
    everything = [message for number in range(200) for message in malformed(number, "sums")]
    assert not any(b"sums." in message.payload or "sums." in str(message.headers) for message in everything)
