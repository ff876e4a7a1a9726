"""A curation through its command: what goes in, what stays, what is said, and what happens when it is stopped."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from perilune.cli.commands import app
from perilune.curation.pipeline import curate
from perilune.curation.plan import read_plan
from perilune.errors import InvalidInputError, StateError
from perilune.local import own_reward

ROWS = [
    {"question": "What is 2+3?", "answer": 5, "topic": "sums"},
    {"question": "1. what is  2 +3", "answer": "5", "topic": "sums"},
    {"question": "Find 2+3.", "answer": "6", "topic": "sums"},
    {"question": "Is 7 prime?", "answer": "yes", "topic": "primes"},
    {"question": "What is 3 * 4? (A) 7 (B) 12 (C) 34", "answer": "B", "topic": "products"},
    {"question": "Prove that 2 is even.", "answer": "it is", "topic": "proofs"},
    {"question": "Compute 17*3", "answer": "51", "topic": "products"},
    {"question": "How many sides has a hexagon?", "answer": "6", "topic": "shapes"},
]


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    path = tmp_path / "raw.jsonl"
    lines = [*map(json.dumps, ROWS), "{broken", '{"question": "And the answer?"}']
    path.write_text("\n".join(lines))
    (tmp_path / "exam.jsonl").write_text(json.dumps({"question": "What is 17 * 3 ?"}))
    return path


def prompts(folder: Path) -> dict[str, str]:
    rows = map(json.loads, (folder / "prompts.jsonl").read_text().splitlines())
    return {row["question"]: row["answer"] for row in rows}


def test_what_stays_and_why_the_rest_leaves(raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    exam = f"overlap.sets.exam.path={tmp_path / 'exam.jsonl'}"
    options = ["--set", exam, "--set", "types.open_choices=true", "--set", "input.labels=['topic']"]
    done = CliRunner().invoke(app, ["curate", str(raw), "--out", str(out), *options])
    assert done.exit_code == 0, done.output
    assert prompts(out) == {"What is 2+3?": "5", "What is 3 * 4?": "12", "How many sides has a hexagon?": "6"}
    report = json.loads((out / "report.json").read_text())
    reasons = {stage["name"]: stage.get("reasons") for stage in report["stages"] if stage.get("reasons")}
    assert reasons == {
        "duplicates": {"exact duplicate": 1, "near duplicate": 1},
        "overlap": {"in exam": 1},
        "types": {"yes or no": 1, "proof": 1},
    }
    assert [row["reason"].partition(": ")[0] for row in report["input"]["rejected"]]
    assert report["input"]["num_rejected"] == 2
    page = (out / "report.html").read_text()
    assert "Find 2+3." in page
    assert "http" not in page.replace("http://www.w3.org", "")


def test_a_finished_stage_is_not_done_again_and_a_changed_one_is(raw: Path, tmp_path: Path) -> None:
    said: list[str] = []
    curate(read_plan(raw, []), tmp_path / "out", said.append)
    first = (tmp_path / "out" / "decisions" / "types.parquet").stat().st_mtime_ns
    curate(read_plan(raw, []), tmp_path / "out", said.append)
    assert (tmp_path / "out" / "decisions" / "types.parquet").stat().st_mtime_ns == first
    curate(read_plan(raw, ["types.exclude=['proof']"]), tmp_path / "out", said.append)
    assert "Is 7 prime?" in prompts(tmp_path / "out")


@pytest.mark.parametrize("answer", ["see solution", "N/A", "-", "Answers may vary.", "left to the reader"])
def test_a_placeholder_is_no_answer(answer: str, tmp_path: Path) -> None:
    raw = tmp_path / "raw.jsonl"
    rows = [
        {"question": "What is it then?", "answer": answer},
        {"question": "Which fruit is it?", "answer": "a figure"},
    ]
    raw.write_text("\n".join(map(json.dumps, rows)))
    curate(read_plan(raw, []), tmp_path / "out", lambda _: None)
    assert prompts(tmp_path / "out") == {"Which fruit is it?": "a figure"}


def test_what_is_wrong_is_named(raw: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"types\.exclud"):
        read_plan(raw, ["types.exclud=['proof']"])
    with pytest.raises(InvalidInputError, match="cannot read the plan"):
        read_plan(tmp_path / "no.toml", [])
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    with pytest.raises(InvalidInputError, match="there are no rows"):
        curate(read_plan(empty, []), tmp_path / "e", lambda _: None)
    with pytest.raises(InvalidInputError, match=r"none of the 10 rows can be used; .*no key 'problem'"):
        curate(read_plan(raw, ["input.question=problem"]), tmp_path / "w", lambda _: None)
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").touch()
    with pytest.raises(StateError, match="no curation's folder"):
        curate(read_plan(raw, []), tmp_path / "home", lambda _: None)


class Endpoint:
    """A model that knows one answer, and is away now and then."""

    def __init__(self, share_away: int) -> None:
        self.asked: Counter[str] = Counter()
        self.share_away = share_away
        self._lock = threading.Lock()

    def reply(self, body: dict[str, Any]) -> tuple[int, str]:
        question = body["messages"][-1]["content"]
        if "hexagon" in question:
            return 200, f"after step {body['seed'] % 9}: \\boxed{{8}}"
        with self._lock:
            self.asked[question] += 1
            if self.share_away and sum(self.asked.values()) % self.share_away == 0:
                return 503, "busy"
        return 200, "\\boxed{5}" if "2+3" in question else f"perhaps {body['seed']}"


@contextlib.contextmanager
def served(endpoint: Endpoint) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            status, text = endpoint.reply(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            body = json.dumps({"choices": [{"message": {"content": text}}]}).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()


PLAN = """
[input]
path = "{raw}"

[[verifiable.graders]]
name = "math"

[difficulty]
num_answers = 4
model = {{ url = "{url}", model = "small" }}
graders = [{{ name = "math" }}]

[guesses]
enabled = {guesses}
model = {{ url = "{url}", model = "small", template = "{{question}} At once:" }}
graders = [{{ name = "math" }}]
"""


@pytest.mark.slow
async def test_difficulty_and_guesses_ask_a_model_once(raw: Path, tmp_path: Path) -> None:
    endpoint = Endpoint(share_away=3)
    with served(endpoint) as url:
        async with own_reward() as address:
            plan = tmp_path / "plan.toml"
            plan.write_text(PLAN.format(raw=raw, url=url, guesses="false"))
            report = await asyncio.to_thread(curate, read_plan(plan, []), tmp_path / "out", lambda _: None, address)
            stages = {stage["name"]: stage for stage in report["stages"]}
            assert stages["difficulty"]["reasons"] == {"too easy": 1, "reference disputed": 1}
            assert stages["difficulty"]["failures"] == []
            rows = list(map(json.loads, (tmp_path / "out" / "prompts.jsonl").read_text().splitlines()))
            assert {row["pass_rate"] for row in rows} == {"0"}
            num_asked = sum(endpoint.asked.values())
            # A changed threshold takes the answers that are there: 2+3 stays, and is then found by guesses.
            plan.write_text(
                PLAN.format(raw=raw, url=url, guesses="true").replace("num_answers", "enabled = false\nnum_answers")
            )
            report = await asyncio.to_thread(curate, read_plan(plan, []), tmp_path / "out", lambda _: None, address)
            assert {s["name"]: s.get("reasons") for s in report["stages"]}["guesses"] == {"guessed": 1}
            assert endpoint.asked["What is 2+3?"] <= num_asked
            assert "What is 2+3?" not in prompts(tmp_path / "out")


@pytest.mark.slow
async def test_an_endpoint_that_is_away_is_named_and_loses_nothing(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perilune.completions.FIRST_PAUSE_S", 0.0)
    async with own_reward() as address:
        plan = tmp_path / "plan.toml"
        plan.write_text(PLAN.format(raw=raw, url="http://127.0.0.1:9/v1", guesses="false"))
        report = await asyncio.to_thread(curate, read_plan(plan, []), tmp_path / "out", lambda _: None, address)
        assert report["num_failed"] == 3
        assert len(prompts(tmp_path / "out")) == 3
        with served(Endpoint(share_away=0)) as url:
            plan.write_text(PLAN.format(raw=raw, url=url, guesses="false"))
            report = await asyncio.to_thread(curate, read_plan(plan, []), tmp_path / "out", lambda _: None, address)
        assert report["num_failed"] == 0
