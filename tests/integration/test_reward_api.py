"""The reward API as other projects see it: a process, two faces, tokens, certificates."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from pydantic import SecretStr

from perilune.api.reward.v1.reward_pb2 import (
    SCORE_STATUS_OK,
    SCORE_STATUS_TIMEOUT,
    GraderChoice,
    Score,
    ScoredAnswer,
)
from perilune.cli import scoring
from perilune.client import AsyncRewardClient, Credentials, RewardClient, grader, score_request
from perilune.errors import (
    AlreadyExistsError,
    InvalidInputError,
    NotFoundError,
    OverloadedError,
    PermissionDeniedError,
    StateError,
    UnauthenticatedError,
    UnavailableError,
)
from tests.integration.serving import Running, reward_service

STUCK = grader("format", options={"pattern": "(a+)+b"})
STUCK_RESPONSE = "a" * 40


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with reward_service(tmp_path_factory.mktemp("service")) as running:
        yield running


@pytest.fixture
def rewards(service: Running) -> Iterator[RewardClient]:
    with RewardClient(service.address) as client:
        yield client


def test_a_batch_gives_each_request_its_score(rewards: RewardClient) -> None:
    requests = [score_request(f"answer: {i}", str(i % 3), ["numeric"]) for i in range(300)]
    scores = rewards.score_all(requests)
    assert [score.value for score in scores] == [float(i == i % 3) for i in range(300)]
    assert rewards.score_all([]) == []


def test_what_a_batch_says_holds_where_its_requests_say_nothing(rewards: RewardClient) -> None:
    requests = [score_request("4", "4"), score_request("4", "4", [grader("numeric", weight=3)])]
    assert [score.value for score in rewards.score_all(requests, ["exact"])] == [1.0, 3.0]


def test_stuck_requests_hold_up_no_others(rewards: RewardClient) -> None:
    requests = [
        score_request(STUCK_RESPONSE, "", [STUCK]) if i < 3 else score_request("4", "4", ["exact"]) for i in range(200)
    ]
    order = [(index, score.status) for index, score in rewards.score_batch(requests, deadline_s=20)]
    assert len(order) == 200
    assert {status for index, status in order if index < 3} == {SCORE_STATUS_TIMEOUT}
    assert {status for index, status in order if index >= 3} == {SCORE_STATUS_OK}
    assert {index for index, _ in order[-3:]} == {0, 1, 2}  # the others did not wait for them


def test_the_deadline_is_kept_and_says_what_was_late(service: Running) -> None:
    with RewardClient(service.address) as rewards:
        (score,) = rewards.score_all([score_request(STUCK_RESPONSE, "", [STUCK, "exact"])], deadline_s=0.4)
        assert str(rewards.score(STUCK_RESPONSE, "", [STUCK], deadline_s=0.4).status) == "SCORE_STATUS_TIMEOUT"
    assert (score.status, score.HasField("value")) == (SCORE_STATUS_TIMEOUT, False)
    assert "before the deadline" in score.components[0].evidence["error"]
    assert score.components[1].status == SCORE_STATUS_OK  # it was asked at the same time


@pytest.mark.parametrize(
    ("request_", "error", "message"),
    [
        (score_request("4", "4"), InvalidInputError, "request 1: no grader was chosen"),
        (score_request("4", "4", ["exakt"]), InvalidInputError, "request 1: .*did you mean 'exact'"),
        (score_request("4", "4", [GraderChoice(name="exact", version="0")]), StateError, "version '1' here, not '0'"),
        (score_request("4" * (9 << 20), "4", ["exact"]), InvalidInputError, "may be 8,388,608"),
        (score_request("4", "4", ["exact"], idempotency_key="k" * 300), InvalidInputError, "256"),
    ],
)
def test_a_batch_with_a_mistake_is_refused_whole(
    rewards: RewardClient, request_: score_request, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        rewards.score_all([score_request("4", "4", ["exact"]), request_])


def test_a_deadline_must_lie_ahead(service: Running) -> None:
    for deadline in (0, -1, "NaN"):
        body = {"response": "4", "graders": [{"name": "exact"}], "deadlineS": deadline}
        status, problem = service.post("/reward/v1/score", body)
        assert (status, problem["code"]) == (400, "INVALID_ARGUMENT")
        assert "deadline_s must be above 0" in problem["detail"]


def test_a_conversation_is_the_question_and_images_come_along(service: Running) -> None:
    body = {
        "conversation": [{"role": "user", "content": "what is on it?"}],
        "images": [{"mediaType": "image/png", "data": "iVBORw0KGgo="}],
        "reference": "4",
        "response": "4",
        "graders": [{"name": "exact"}],
    }
    status, answer = service.post("/reward/v1/score", body)
    assert (status, answer["score"]["value"]) == (200, 1.0)


def test_both_faces_say_the_same(service: Running, rewards: RewardClient) -> None:
    batch = {"requests": [{"response": "\\boxed{0.5}", "reference": "1/2"}], "graders": [{"name": "math"}]}
    status, (line,) = service.post("/reward/v1/score-batch", batch)
    assert (status, line["index"], line["score"]["value"]) == (200, 0, 1.0)
    assert line["score"]["components"][0]["evidence"] == dict(
        rewards.score("\\boxed{0.5}", "1/2", ["math"]).components[0].evidence
    )
    status, problem = service.post("/reward/v1/score", {"response": "4", "graders": [{"name": "exakt"}]})
    assert (status, problem["code"]) == (400, "INVALID_ARGUMENT")
    assert "did you mean 'exact'" in problem["detail"]


# --- Idempotency and rescoring --------------------------------------------------------------------------------------


def test_a_key_gives_the_score_that_is_there(rewards: RewardClient) -> None:
    first = rewards.score("4", "4", ["exact"], idempotency_key="one")
    assert rewards.score("4", "4", ["exact"], idempotency_key="one") == first
    with pytest.raises(AlreadyExistsError, match="'one' was used for another request"):
        rewards.score("5", "4", ["exact"], idempotency_key="one")


async def test_one_key_at_one_time_is_graded_once(service: Running) -> None:
    async with AsyncRewardClient(service.address) as rewards:
        calls = [rewards.score("\\boxed{2x+2}", "2(x+1)", ["math"], idempotency_key="many") for _ in range(20)]
        scores = await asyncio.gather(*calls)
    assert len({score.components[0].seconds for score in scores}) == 1


def test_a_failure_is_not_kept_as_the_score(rewards: RewardClient) -> None:
    request = score_request(STUCK_RESPONSE, "", [STUCK], idempotency_key="stuck")
    first, second = (rewards.score_all([request], deadline_s=deadline_s)[0] for deadline_s in (0.3, 20))
    assert (first.status, second.status) == (SCORE_STATUS_TIMEOUT, SCORE_STATUS_TIMEOUT)
    assert second.components[0].seconds > first.components[0].seconds  # it was graded again


def test_rescoring_asks_only_what_has_changed(rewards: RewardClient) -> None:
    request = score_request("answer: 4", "4", ["numeric", grader("exact", weight=2, options={"marker": "answer:"})])
    score = rewards.score_all([request])[0]
    older = Score()
    older.CopyFrom(score.message)
    older.components[0].version, older.components[0].value, older.value = "0", 0.0, 2.0

    (unchanged,) = rewards.rescore([ScoredAnswer(request=request, score=score)])
    assert (unchanged.changed, unchanged.after) == (False, score)  # to the second: nothing was asked again
    (answer,) = rewards.rescore([ScoredAnswer(request=request, score=older)])
    assert (answer.changed, answer.before.value, answer.after.value) == (True, 2.0, 3.0)
    assert answer.after.components[1] == older.components[1]
    (forced,) = rewards.rescore([ScoredAnswer(request=request, score=score)], force=True)
    assert forced.after.components[1].seconds != score.components[1].seconds
    (other,) = rewards.rescore([ScoredAnswer(request=request, score=score)], graders=[grader("numeric", weight=5)])
    assert (other.after.value, len(other.after.components)) == (5.0, 1)


def test_answers_are_kept_by_their_keys(rewards: RewardClient) -> None:
    rewards.score("answer: 4", "4", ["numeric"], idempotency_key="kept")
    (answer,) = rewards.rescore(idempotency_keys=["kept"], graders=[grader("numeric", weight=7)])
    assert (answer.before.value, answer.after.value, answer.changed) == (1.0, 7.0, True)
    (again,) = rewards.rescore(idempotency_keys=["kept"])
    assert (again.before.value, again.changed) == (7.0, False)
    with pytest.raises(NotFoundError, match="no answer is kept for the idempotency key 'lost'"):
        list(rewards.rescore(idempotency_keys=["lost"]))


def test_an_answers_file_outlives_the_service(tmp_path: Path) -> None:
    path = str(tmp_path / "answers.sqlite")
    with reward_service(tmp_path, answers_file=path) as first, RewardClient(first.address) as rewards:
        score = rewards.score("4", "4", ["exact"], idempotency_key="k")
    with reward_service(tmp_path, answers_file=path) as second, RewardClient(second.address) as rewards:
        assert rewards.score("4", "4", ["exact"], idempotency_key="k") == score


# --- Who calls ------------------------------------------------------------------------------------------------------


def credentials(token: str = "", **files: Path) -> Credentials:
    return Credentials(token=SecretStr(token), **files)


async def test_tokens_names_roles_and_quotas(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens.toml"
    alice = scoring.new_token(tokens, "alice", ["reward"], None, None)
    bob = scoring.new_token(tokens, "bob", ["sandbox"], None, None)
    carol = scoring.new_token(tokens, "carol", ["reward"], 1.0, None)
    dora = scoring.new_token(tokens, "dora", ["reward"], None, 1)

    def check(service: Running) -> None:
        with RewardClient(service.address, credentials=credentials(alice)) as rewards:
            assert rewards.score("4", "4", ["exact"], idempotency_key="mine").value == 1.0
            assert rewards.score_all([score_request("4", "4", ["exact"])])[0].value == 1.0
        for token, error, message in (
            ("", UnauthenticatedError, "authorization: Bearer TOKEN"),
            ("perilune-wrong", UnauthenticatedError, "not known"),
            (bob, PermissionDeniedError, "bob has the roles sandbox"),
        ):
            with RewardClient(service.address, credentials=credentials(token)) as rewards:
                with pytest.raises(error, match=message):
                    rewards.graders()
                with pytest.raises(error, match=message):
                    rewards.score_all([score_request("4", "4", ["exact"])])
        body = {"response": "4", "reference": "4", "graders": [{"name": "exact"}], "idempotencyKey": "mine"}
        status, problem = service.post("/reward/v1/score", body)
        assert (status, problem["code"]) == (401, "UNAUTHENTICATED")
        assert service.post("/reward/v1/score", body, {"authorization": f"Bearer {bob}"})[0] == 403
        other = {"response": "5", "graders": [{"name": "exact"}], "idempotencyKey": "mine"}
        status, answer = service.post("/reward/v1/score", other, {"authorization": f"Bearer {carol}"})
        assert (status, answer["score"]["value"]) == (200, 0.0)  # alice's key is not carol's
        status, problem = service.post("/reward/v1/score", other, {"authorization": f"Bearer {carol}"})
        assert (status, problem["code"]) == (429, "RESOURCE_EXHAUSTED")
        assert 0 < problem["retryAfterMs"] <= 1000

    with reward_service(tmp_path, tokens_file=str(tokens)) as service:
        await asyncio.to_thread(check, service)
        async with AsyncRewardClient(service.address, credentials=credentials(dora)) as rewards:
            slow = asyncio.create_task(rewards.score_all([score_request(STUCK_RESPONSE, "", [STUCK])]))
            results = await asyncio.gather(
                slow, *(rewards.score("4", "4", ["exact"]) for _ in range(3)), return_exceptions=True
            )
        # gRPC waits as long as the service says, and tries again: the quota costs time, not answers.
        assert all(isinstance(each, Score | list | OverloadedError) for each in results)
        assert isinstance(results[0], list)


def test_the_tokens_file_is_read_again_when_it_changes_and_a_broken_one_changes_nothing(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens.toml"
    body = {"response": "4", "reference": "4", "graders": [{"name": "exact"}]}
    first = scoring.new_token(tokens, "first", ["reward"], None, None)

    def status_of(token: str) -> int:
        return service.post("/reward/v1/score", body, {"authorization": f"Bearer {token}"})[0]

    def comes(token: str, status: int) -> bool:
        deadline = time.monotonic() + 10
        while status_of(token) != status and time.monotonic() < deadline:
            time.sleep(0.05)
        return status_of(token) == status

    with reward_service(tmp_path, tokens_file=str(tokens)) as service:
        second = scoring.new_token(tokens, "second", ["reward"], None, None)
        service.process.send_signal(signal.SIGHUP)
        assert comes(second, 200)
        good = tokens.read_text()
        tokens.write_text(good + "\n[third]\nroles = 5\n")
        service.process.send_signal(signal.SIGHUP)
        time.sleep(0.3)
        assert (status_of(first), status_of(second), service.process.poll()) == (200, 200, None)
        tokens.write_text(good.partition("[second]")[0])  # nothing is sent: the change is seen
        assert comes(second, 401)
        assert status_of(first) == 200


def test_tls_and_certificates_of_callers(tmp_path: Path) -> None:
    authority = trustme.CA()
    server = authority.issue_cert("127.0.0.1", "localhost")
    client = authority.issue_cert("trainer-7", common_name="trainer-7")
    stranger = trustme.CA().issue_cert("trainer-7", common_name="trainer-7")
    files = {}
    for name, one in (("server", server), ("client", client), ("stranger", stranger)):
        files[f"{name}.key"], files[f"{name}.pem"] = tmp_path / f"{name}.key", tmp_path / f"{name}.pem"
        one.private_key_pem.write_to_path(files[f"{name}.key"])
        files[f"{name}.pem"].write_bytes(b"".join(part.bytes() for part in one.cert_chain_pems))
    ca = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(ca)
    tokens = tmp_path / "tokens.toml"
    tokens.write_text('[trainer]\ncertificate = "trainer-7"\nroles = ["reward"]\n')
    settings = {"tls_cert": str(files["server.pem"]), "tls_key": str(files["server.key"])}

    with reward_service(tmp_path, **settings) as service:
        assert service.http.startswith("https://")
        with RewardClient(service.address, credentials=credentials(tls_ca=ca)) as rewards:
            assert rewards.score("4", "4", ["exact"]).value == 1.0
        with RewardClient(service.address, deadline_s=2) as plain, pytest.raises(UnavailableError):
            plain.graders()

    with reward_service(tmp_path, **settings, tls_client_ca=str(ca), tokens_file=str(tokens)) as service:
        own = credentials(tls_ca=ca, tls_cert=files["client.pem"], tls_key=files["client.key"])
        with RewardClient(service.address, credentials=own) as rewards:
            assert rewards.score("4", "4", ["exact"]).value == 1.0
        other = credentials(tls_ca=ca, tls_cert=files["stranger.pem"], tls_key=files["stranger.key"])
        with RewardClient(service.address, 2, other) as rewards, pytest.raises(UnavailableError):
            rewards.graders()
        curl = ["--cacert", str(ca), "--cert", str(files["client.pem"]), "--key", str(files["client.key"])]
        assert json.loads(fetch(service.http + "/reward/v1/list-graders", curl))["graders"]


def fetch(url: str, options: list[str]) -> str:
    """By a program that is not ours, with a client certificate."""
    code = (
        "import ssl, sys, urllib.request\n"
        "_, ca, _, cert, _, key = sys.argv[2:]\n"
        "context = ssl.create_default_context(cafile=ca)\n"
        "context.load_cert_chain(cert, key)\n"
        "print(urllib.request.urlopen(sys.argv[1], context=context, timeout=30).read().decode())\n"
    )
    done = subprocess.run([sys.executable, "-c", code, url, *options], capture_output=True, text=True, check=True)
    return done.stdout


# --- The command line -----------------------------------------------------------------------------------------------


def run_score(service: Running, *arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from perilune.cli import main; main()", "score", "--address", service.address]
    return subprocess.run([*command, *arguments], input=text, capture_output=True, text=True, timeout=120, check=False)


def test_perilune_score_takes_lines_and_gives_them_back(service: Running) -> None:
    lines = [{"response": f"answer: {i}", "reference": "1", "id": i} for i in range(3)]
    done = run_score(service, "-", "--grader", "numeric", text="\n".join(map(json.dumps, lines)))
    assert done.returncode == 0
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(line["id"], line["score"]["value"]) for line in found] == [(0, 0.0), (1, 1.0), (2, 0.0)]
    assert "3 scored, mean 0.3333" in done.stderr


def test_perilune_score_lists_the_graders_with_their_options(service: Running) -> None:
    done = run_score(service, "--graders")
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert any(line.startswith("numeric ") for line in lines)
    assert any(line.startswith("    tolerance: ") for line in lines)
    listed = {each["name"]: each["options"] for each in json.loads(run_score(service, "--graders", "--json").stdout)}
    assert {"exact", "numeric", "math", "code"} <= listed.keys()
    assert "tolerance" in listed["numeric"]


def test_perilune_score_says_what_failed(service: Running) -> None:
    one = run_score(service, "--response", "4", "--reference", "many", "--grader", "numeric")
    assert one.returncode == 1
    assert "GRADER_ERROR" in one.stdout
    assert "is no number" in one.stdout
    right = run_score(
        service, "--response", "answer: 4", "--reference", "4", "--json", "--grader", '{"name": "numeric", "weight": 2}'
    )
    assert json.loads(right.stdout)["value"] == 2.0
    wrong = run_score(service, "-", "--grader", "numeric", text='{"response": 4}\n')
    assert (wrong.returncode, wrong.stdout) == (1, "")
    assert "line 1 is no request such as" in wrong.stderr
    assert "did you mean 'numeric'" in run_score(service, "--response", "4", "--grader", "numerik").stderr
    mixed = run_score(service, "-", "--grader", "numeric", text='{"response": "4", "reference": "x"}\n')
    assert (mixed.returncode, json.loads(mixed.stdout)["score"]["status"]) == (1, "SCORE_STATUS_GRADER_ERROR")
