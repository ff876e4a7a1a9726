"""Who may call, what, and how much; on a clock that the test moves."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from perilune.cli import scoring
from perilune.errors import (
    AlreadyExistsError,
    InvalidInputError,
    OverloadedError,
    PermissionDeniedError,
    UnauthenticatedError,
)
from perilune.runtime.auth import ANYONE, Entry, Gate, caller, digest_of, new_token, read_tokens

REWARD = "perilune.api.reward.v1.RewardService"
SANDBOX = "perilune.api.sandbox.v1.SandboxService"


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def gate(clock: Clock) -> Gate:
    return Gate(
        {
            "alice": Entry(
                sha256=digest_of("a-token"), roles=frozenset({"reward"}), requests_per_s=2, max_concurrent=3
            ),
            "trainer": Entry(certificate="trainer-7", roles=frozenset({"admin"})),
        },
        clock,
    )


def test_a_token_is_known_in_either_scheme(gate: Gate) -> None:
    assert gate.caller("Bearer a-token").name == "alice"
    assert gate.caller("bearer  a-token ").name == "alice"
    assert gate.caller("Basic " + base64.b64encode(b"anything:a-token").decode()).name == "alice"


def test_a_renewed_gate_knows_the_new_tokens_and_keeps_the_quotas(gate: Gate) -> None:
    alice = Entry(sha256=digest_of("a-token"), roles=frozenset({"reward"}), requests_per_s=2, max_concurrent=3)
    gate.caller("Bearer a-token").charge(2)
    gate.renew({"alice": alice, "bob": Entry(sha256=digest_of("b-token"), roles=frozenset({"reward"}))})
    assert gate.caller("Bearer b-token").name == "bob"
    with pytest.raises(OverloadedError):
        gate.caller("Bearer a-token").charge()
    gate.renew({"bob": Entry(sha256=digest_of("b-token"), roles=frozenset({"sandbox"}))})
    with pytest.raises(UnauthenticatedError, match="not known here"):
        gate.caller("Bearer a-token")
    with pytest.raises(PermissionDeniedError), gate.caller("Bearer b-token").call(REWARD):
        pass


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer ", "Basic !!", "Basic YWJj", "Digest a-token", "a-token"])
def test_no_token_says_what_to_send(gate: Gate, header: str) -> None:
    with pytest.raises(UnauthenticatedError, match="authorization: Bearer TOKEN"):
        gate.caller(header)


def test_a_wrong_token_is_refused(gate: Gate) -> None:
    with pytest.raises(UnauthenticatedError, match="not known"):
        gate.caller("Bearer another")


def test_a_certificate_is_as_good_as_a_token(gate: Gate) -> None:
    assert gate.caller("", ["trainer-7"]).name == "trainer"
    with pytest.raises(UnauthenticatedError):
        gate.caller("", ["trainer-8"])  # the authority's, but nobody that the file names
    assert Gate({}).caller("", ["trainer-8"]) is ANYONE  # with no file, the authority's word is enough


def test_a_role_covers_its_services(gate: Gate) -> None:
    alice, trainer = gate.caller("Bearer a-token"), gate.caller("", ["trainer-7"])
    with alice.call(REWARD), trainer.call(SANDBOX), alice.call("grpc.reflection.v1alpha.ServerReflection"):
        pass
    with pytest.raises(PermissionDeniedError, match="alice has the roles reward"), alice.call(SANDBOX):
        pass


@pytest.mark.parametrize("expires", ["1970-01-03", "1970-01-03T01:00:00+01:00"])
def test_a_token_is_good_until_it_expires(tmp_path: Path, expires: str) -> None:
    path = tmp_path / "tokens.toml"
    path.write_text(
        f"[a]\nsha256 = '{digest_of('a')}'\nroles = ['viewer']\nexpires = {expires}\n"
        f"[b]\ncertificate = 'b'\nroles = ['relay']\nexpires = {expires}\n"
    )
    now = Clock()
    gate = Gate(read_tokens(path), now=now)
    now.now = 2 * 86400 - 1.0
    assert (gate.caller("Bearer a").name, gate.caller("", ["b"]).name) == ("a", "b")
    now.now += 1.0
    for shown in (("Bearer a",), ("", ["b"])):
        with pytest.raises(UnauthenticatedError, match="expired at 1970-01-03"):
            gate.caller(*shown)


def test_the_rate_is_a_bucket_that_fills_again(gate: Gate, clock: Clock) -> None:
    alice = gate.caller("Bearer a-token")
    for _ in range(2):
        alice.charge()
    with pytest.raises(OverloadedError, match="2 requests a second") as refused:
        alice.charge()
    assert refused.value.retry_after_s == pytest.approx(0.5)
    clock.now += 0.5
    alice.charge()
    clock.now += 60  # no more than one second's worth is saved up
    alice.charge(2)
    with pytest.raises(OverloadedError):
        alice.charge()


def test_a_large_batch_is_let_through_and_paid_for_afterwards(gate: Gate, clock: Clock) -> None:
    alice = gate.caller("Bearer a-token")
    alice.charge(10)
    clock.now += 4
    with pytest.raises(OverloadedError) as refused:  # 2 - 10 + 4 * 2 = 0
        alice.charge()
    assert refused.value.retry_after_s == pytest.approx(0.5)
    clock.now += 0.5
    alice.charge()


def test_places_are_given_back(gate: Gate, clock: Clock) -> None:
    alice = gate.caller("Bearer a-token")
    with alice.call(REWARD), alice.call(REWARD):
        assert caller() is alice
        clock.now += 10
        with alice.call(REWARD):
            clock.now += 10
            with pytest.raises(OverloadedError, match="3 calls under way"), alice.call(REWARD):
                pass
        with alice.call(REWARD):
            pass
    assert caller() is ANYONE
    assert alice.num_running == 0


def test_a_token_of_the_command_line_opens_the_gate(tmp_path: Path) -> None:
    path = tmp_path / "tokens.toml"
    alice = scoring.new_token(path, "alice", ["reward"], 50, 8)
    bob = scoring.new_token(path, "bob", ["sandbox", "reward"], None, None)
    assert path.stat().st_mode & 0o077 == 0
    assert alice not in path.read_text()
    gate = Gate(read_tokens(path))
    found = gate.caller(f"Bearer {alice}")
    assert (found.name, found.requests_per_s, found.max_concurrent) == ("alice", 50, 8)
    assert gate.caller(f"Bearer {bob}").roles == {"sandbox", "reward"}
    with pytest.raises(AlreadyExistsError, match="alice"):
        scoring.new_token(path, "alice", ["reward"], None, None)
    with pytest.raises(InvalidInputError, match="no role 'rewards'; known are"):
        scoring.new_token(path, "carol", ["rewards"], None, None)
    assert len({new_token() for _ in range(3)}) == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "names no caller"),
        ("[alice]\nroles = ['reward']", "give sha256"),
        ("[alice]\nsha256 = 'abc'\nroles = ['reward']", "alice.sha256"),
        ("[alice]\ncertificate = 'a'\nroles = []", "alice.roles"),
        ("[alice]\ncertificate = 'a'\nroles = ['reward']\nrate = 3", "alice.rate"),
        ("[alice]\ncertificate = 'a'\nroles = ['reward']\nrequests_per_s = -1", "alice.requests_per_s"),
        ("[alice", "cannot be read"),
        ("[t]\ncertificate = 'a'\nroles = ['worker']", "'worker' of versions before is now .* trainer, rollout"),
        ("[t]\ncertificate = 'a'\nroles = ['runs']", "'runs' of versions before is now submitter"),
        ("[t]\ncertificate = 'a'\nroles = ['admin']\nexpires = 'soon'", "t.expires"),
    ],
)
def test_a_wrong_tokens_file_says_where(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "tokens.toml"
    path.write_text(text)
    with pytest.raises(InvalidInputError, match=message):
        read_tokens(path)
