"""Warm-up data from questions to files: paths are asked for, graded, labelled, balanced and written.

What a model wrote and what a grader said is kept in answers.sqlite, so that the same command goes on where it was
stopped, and another plan pays for nothing twice. A path without a verdict is never a wrong one: it is a failure, and
the same command tries it again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

from perilune.completions import Answers, Cache, Model, ModelTable, Sampler
from perilune.concurrency import as_finished
from perilune.curation.stages.stage import Tools, as_iterator
from perilune.curation.workspace import Row, batched
from perilune.data.files import matching, rows_of
from perilune.data.rows import label_of, text_of, value_at
from perilune.data.whole_files import whole_file, write_whole
from perilune.errors import InvalidInputError, StateError, UnavailableError
from perilune.warmup_data.balance import Candidate, balanced, counted
from perilune.warmup_data.behaviours import LABEL_PROMPT, by_rules, labels_in
from perilune.warmup_data.plan import WarmupDataPlan

BATCH = 32  # prompts whose paths are graded together
NUM_LABEL_TRIES = 3
NUM_SHOWN = 5  # examples of each kind, in the report
MAX_SHOWN_CHARS = 3000
PATHS, DATA = "paths.jsonl", "warmup.jsonl"


@dataclass(frozen=True)
class PathRecord:
    """One reasoning path: what was asked, what was written, and what became of it."""

    question: int
    place: str
    style: str
    text: str
    verdict: str = "right"  # or wrong, repeated, too long, not graded
    behaviours: tuple[str, ...] = ()
    labelled_by: str = "rules"


def make(plan: WarmupDataPlan, folder: Path, notify: Callable[[str], None], reward_address: str) -> dict[str, Any]:
    """Makes warm-up data by a plan; gives the report.

    Args:
        plan: what to do; it names a model and graders.
        folder: where answers, paths, data and reports go.
        notify: takes a line of progress.
        reward_address: of the reward service that grades.

    Raises:
        InvalidInputError: the input or the plan cannot be used, or the endpoint rejects every request.
        StateError: the disk takes no more, or the folder is something else.
    """
    questions, rejected = read_questions(plan)
    _open(folder)
    cache = Cache(folder / "answers.sqlite")
    try:
        tools = Tools(notify, reward_address, cache)
        found = _write_paths(_all_paths(plan, questions, tools), folder / PATHS)
    finally:
        cache.close()
    chosen = balanced(found.candidates, plan.balance, plan.seed)
    _write_data(plan, questions, {each.number for each in chosen}, folder)
    report = {
        "funnel": {
            "paths asked for": len(questions) * len(plan.styles) * plan.num_samples,
            "written": found.verdicts.total(),
            "graded": found.verdicts.total() - found.verdicts["not graded"],
            "right": sum(found.right.values()),
            "kept": len(chosen),
        },
        "verdicts": dict(found.verdicts),
        "styles": {name: {"written": found.written[name], "right": found.right[name]} for name in plan.styles},
        "behaviours": {
            "right": counted([each.behaviours for each in found.candidates]),
            "kept": counted([each.behaviours for each in chosen]),
        },
        "labelled_by": dict(found.labelled_by),
        "num_questions": len(questions),
        "num_questions_kept": len({each.question for each in chosen}),
        "rejected": rejected,
        "failures": tools.failures,
        "num_kept": len(chosen),
    }
    _write_documents(plan, report, folder)
    return report


# --- Questions ----------------------------------------------------------------------------------------------------


def read_questions(plan: WarmupDataPlan) -> tuple[list[Row], list[dict[str, str]]]:
    """The questions, and rows that are none with the reason. InvalidInputError: there is no question."""
    questions: list[Row] = []
    rejected: list[dict[str, str]] = []
    if plan.input.dataset or plan.input.images:
        raise InvalidInputError("warm-up data is made of files of text: give input.path, and no dataset or images")
    for path in matching(plan.input.path):
        for where, row in rows_of(path, plan.input.format):
            if len(questions) == plan.num_questions:
                break
            try:
                questions.append(_question(len(questions), where, row, plan))
            except InvalidInputError as error:
                rejected.append({"place": where, "reason": str(error)})
    if not questions:
        why = f"none of the {len(rejected)} rows can be used; the first: {rejected[0]['reason']}" if rejected else ""
        raise InvalidInputError(why or f"there are no rows in {', '.join(plan.input.path)}")
    return questions, rejected


def _question(number: int, where: str, row: Mapping[str, Any] | InvalidInputError, plan: WarmupDataPlan) -> Row:
    if isinstance(row, InvalidInputError):
        raise row
    table = plan.input
    question, answer = (text_of(value_at(row, key, where), where, key) for key in (table.question, table.answer))
    labels = {key: label_of(value_at(row, key, where), where, key) for key in table.labels}
    return Row(number, where, question, answer, labels)


# --- Paths --------------------------------------------------------------------------------------------------------


def _all_paths(plan: WarmupDataPlan, questions: Sequence[Row], tools: Tools) -> Iterator[PathRecord]:
    """Every path with its verdict and what it shows, as they come."""
    num_done, num_all = 0, len(questions) * len(plan.styles)
    for batch in batched(_asked(plan, questions, tools), BATCH):
        num_done += len(batch)
        tools.notify(f"{num_done:,} of {num_all:,} prompts answered")
        written = [
            PathRecord(row.id, row.place, style, text)
            for row, style, answers in batch
            for text in dict.fromkeys(answers.texts)
        ]
        judged = list(_judged(plan, written, questions, tools))
        yield from _labelled(plan, judged, questions, tools) if plan.labeller.is_given else judged


def _asked(plan: WarmupDataPlan, questions: Sequence[Row], tools: Tools) -> Iterator[tuple[Row, str, Answers]]:
    """Questions with the model's paths in one style, as they come; what was not answered is a failure."""
    pairs = [(row, style) for style in plan.styles for row in questions]
    prompts = ((at, plan.styles[style].replace("{question}", row.question)) for at, (row, style) in enumerate(pairs))
    sampler = Sampler(plan.writer, _cache_of(tools), _key_of(plan.writer))
    for at, answers in as_iterator(sampler.sample(prompts, plan.num_samples)):
        row, style = pairs[at]
        if answers.failure:
            tools.fail(row, f"{style}: {answers.failure}")
        yield row, style, answers


def _judged(
    plan: WarmupDataPlan, paths: Sequence[PathRecord], questions: Sequence[Row], tools: Tools
) -> Iterator[PathRecord]:
    """Paths with their verdicts; what a grader has said before is taken as it is."""
    graders = [each.model_dump(mode="json") for each in plan.graders]
    rows = [questions[each.question] for each in paths]
    keys = [_digest(graders, row.question, row.answer, each.text) for row, each in zip(rows, paths, strict=True)]
    cache = _cache_of(tools)
    said = {key: cache.get(key) for key in keys}
    asked = [at for at, key in enumerate(keys) if said[key] is None]
    verdicts = tools.right(plan.graders, ((rows[at], paths[at].text) for at in asked))
    for at, is_right in zip(asked, verdicts, strict=True):
        if is_right is None:
            tools.fail(rows[at], "a path could not be graded")
            continue
        said[keys[at]] = "right" if is_right else "wrong"
        cache.put(keys[at], str(said[keys[at]]))
    for key, each in zip(keys, paths, strict=True):
        verdict = said[key] or "not graded"
        if verdict == "right" and plan.balance.max_words and len(each.text.split()) > plan.balance.max_words:
            verdict = "too long"
        yield replace(each, verdict=verdict, behaviours=by_rules(each.text) if verdict == "right" else ())


def _labelled(
    plan: WarmupDataPlan, paths: Sequence[PathRecord], questions: Sequence[Row], tools: Tools
) -> Iterator[PathRecord]:
    """Right paths with the behaviours that a model names; those of the rules where it answers no such list."""

    async def labels() -> AsyncIterator[tuple[int, tuple[str, ...] | None]]:
        async with Model(plan.labeller, _cache_of(tools), _key_of(plan.labeller)) as model:
            right = (at for at, each in enumerate(paths) if each.verdict == "right")
            work = (_label(model, at, paths[at], questions, tools) for at in right)
            async for found in as_finished(work, plan.labeller.max_concurrent):
                yield found

    named = {at: found for at, found in as_iterator(labels()) if found is not None}
    for at, each in enumerate(paths):
        yield replace(each, behaviours=named[at], labelled_by=plan.labeller.name) if at in named else each


async def _label(
    model: Model, at: int, path: PathRecord, questions: Sequence[Row], tools: Tools
) -> tuple[int, tuple[str, ...] | None]:
    row = questions[path.question]
    prompt = LABEL_PROMPT.replace("{question}", row.question).replace("{path}", path.text)
    for attempt in range(NUM_LABEL_TRIES):
        try:
            found = labels_in(await model.reply([{"role": "user", "content": prompt}], attempt))
        except UnavailableError as error:
            tools.fail(row, f"labels: {error}")
            return at, None
        if found is not None:
            return at, found
    return at, None


# --- Files --------------------------------------------------------------------------------------------------------


@dataclass
class Found:
    """Describes what is known of all paths, without their texts."""

    candidates: list[Candidate]
    verdicts: Counter[str]
    written: Counter[str]  # by style
    right: Counter[str]
    labelled_by: Counter[str]


def _write_paths(paths: Iterator[PathRecord], path: Path) -> Found:
    """Writes every path, a line each; gives those that may be kept, and counts."""
    found = Found([], Counter(), Counter(), Counter(), Counter())
    with whole_file(path) as file:
        for number, each in enumerate(_unrepeated(paths)):
            found.verdicts[each.verdict] += 1
            found.written[each.style] += 1
            if each.verdict == "right":
                found.right[each.style] += 1
                found.labelled_by[each.labelled_by] += 1
                digest = _digest(each.place, each.text).hex()
                found.candidates.append(Candidate(number, each.question, digest, each.behaviours))
            file.write(json.dumps(asdict(each), ensure_ascii=False).encode("utf-8", "replace") + b"\n")
    return found


def _unrepeated(paths: Iterator[PathRecord]) -> Iterator[PathRecord]:
    """Paths, where a right one that another style has given already is said to be repeated."""
    seen: set[bytes] = set()
    for each in paths:
        key = _digest(each.question, each.text)
        is_known = key in seen
        seen.add(key)
        yield replace(each, verdict="repeated") if is_known and each.verdict == "right" else each


def _write_data(plan: WarmupDataPlan, questions: Sequence[Row], chosen: set[int], folder: Path) -> None:
    """Writes the kept paths as conversations, which `[[stages]] type = "sft"` reads."""
    kept = sorted((each for number, each in read_paths(folder) if number in chosen), key=_place_of)
    rows = [_example(questions[each["question"]], each) for each in kept]
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    write_whole(folder / DATA, lines.encode("utf-8", "replace"))
    if plan.parquet:
        import pyarrow as pa
        import pyarrow.parquet as pq

        with whole_file(folder / "warmup.parquet") as out:
            pq.write_table(pa.Table.from_pylist(rows), out)


def _place_of(path: Mapping[str, Any]) -> tuple[int, str, str]:
    """Orders paths by their questions, however they came."""
    return path["question"], path["style"], path["text"]


def read_paths(folder: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The paths of a folder by their numbers."""
    with (folder / PATHS).open("rb") as lines:
        for number, line in enumerate(lines):
            yield number, json.loads(line)


def _example(row: Row, path: Mapping[str, Any]) -> dict[str, Any]:
    """A row of the data: the question alone, without what was asked of the model beside it, and the path."""
    said = {"role": "user", "content": row.question}, {"role": "assistant", "content": path["text"].strip()}
    traits = {"behaviours": path["behaviours"], "style": path["style"], "answer": row.answer, "place": row.place}
    return {"messages": list(said), **row.labels, **traits}


def _write_documents(plan: WarmupDataPlan, report: Mapping[str, Any], folder: Path) -> None:
    from perilune.warmup_data.report import page_of

    files = {path: _file_digest(Path(path)) for path in matching(plan.input.path)}
    manifest = {
        "plan": plan.model_dump(mode="json"),
        "inputs": files,
        "data": {DATA: _file_digest(folder / DATA)},
        "version": metadata.version("perilune"),
    }
    documents = {
        "report.json": json.dumps(report, indent=1, ensure_ascii=False),
        "manifest.json": json.dumps(manifest, indent=1, ensure_ascii=False),
        "report.html": page_of(report, manifest, examples(folder)),
    }
    for name, text in documents.items():
        write_whole(folder / name, text.encode("utf-8", "replace"))


def examples(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """The first paths of each verdict and of each behaviour, shortened, for people to read."""
    shown: dict[str, list[dict[str, Any]]] = {}
    for _, each in read_paths(folder):
        for kind in each["behaviours"] or [each["verdict"] if each["verdict"] != "right" else "right, and shows none"]:
            if len(some := shown.setdefault(kind, [])) < NUM_SHOWN:
                some.append({**each, "text": each["text"][:MAX_SHOWN_CHARS]})
    return shown


# --- Little things ------------------------------------------------------------------------------------------------


def _open(folder: Path) -> None:
    try:
        if folder.exists() and any(folder.iterdir()) and not (folder / "answers.sqlite").exists():
            raise StateError(f"{folder} is not empty and holds no warm-up data: choose another folder")
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidInputError(f"cannot write to {folder}: {error.strerror}; name another folder by --out") from error


def _cache_of(tools: Tools) -> Cache:
    assert tools.cache is not None
    return tools.cache


def _key_of(table: ModelTable) -> str:
    return os.environ.get(table.api_key_env, "")


def _digest(*parts: Any) -> bytes:
    return hashlib.sha256(json.dumps(["verdict", *parts], sort_keys=True).encode()).digest()


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
