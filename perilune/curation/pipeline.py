"""A curation from its input to its prompt set: stage by stage, what was finished before is taken as it is."""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from perilune.completions import Cache
from perilune.curation.plan import InputTable, PlanBase
from perilune.curation.stages.stage import Stage, Tools
from perilune.curation.workspace import Decision, Row, Survivors, Workspace
from perilune.data.files import matching, rows_of
from perilune.data.rows import label_of, text_of, value_at
from perilune.errors import InvalidInputError

NUM_EXAMPLES = 5  # of each reason, in the report
NUM_REJECTED_SHOWN = 20
NOT_READ = "read"


def curate(plan: PlanBase, folder: Path, notify: Callable[[str], None], reward_address: str = "") -> dict[str, Any]:
    """Runs a plan; gives the report (`report.json`).

    Args:
        plan: what to do.
        folder: where rows, decisions and results are kept; a plan that was stopped goes on there.
        notify: takes a line for each stage.
        reward_address: of the reward service, where a stage of the plan grades.

    Raises:
        InvalidInputError: the input cannot be read, or nothing of it can be used.
        StateError: the folder is something else.
    """
    space = Workspace(folder)
    read = _read(plan.input, space, notify)
    rows = Survivors(space.rows(), [])
    tools = Tools(notify, reward_address, Cache(folder / "answers.sqlite"))
    steps: list[dict[str, Any]] = []
    key = read["key"]
    for name, stage in plan.stages().items():
        key = _digest(key, name, stage.model_dump(mode="json"))
        steps.append(_step(name, stage, rows, space, key, tools))
    num_kept = _write_prompts(rows, folder / "prompts.jsonl")
    report = {
        "plan": plan.model_dump(mode="json"),
        "input": read,
        "stages": steps,
        "num_kept": num_kept,
        "num_failed": sum(len(step.get("failures", ())) for step in steps),
        "digest": _file_digest(folder / "prompts.jsonl"),
        "version": metadata.version("perilune"),
    }
    (folder / "report.json").write_text(json.dumps(report, indent=1, ensure_ascii=False))
    return report


def _step(name: str, stage: Stage, rows: Survivors, space: Workspace, key: str, tools: Tools) -> dict[str, Any]:
    """Does one stage, or takes what it decided before; gives its part of the report."""
    num_before = len(rows)
    if why := stage.off():
        tools.notify(f"{name}: {why}")
        return {"name": name, "title": stage.title, "off": why, "num_before": num_before, "num_after": num_before}
    done = space.finished(name, key)
    if done is None:
        started = time.monotonic()
        tools.failures.clear()
        space.write_decisions(name, stage.decide(rows, tools))
        done = {"key": key, "seconds": round(time.monotonic() - started, 2), "failures": list(tools.failures)}
        if not tools.failures:  # what failed is tried again by the next command
            space.finish(name, done)
    reasons, examples, num_changed = _counted(space.decisions(name), rows)
    rows.apply(space.decisions(name))
    tools.notify(f"{name}: {num_before:,} -> {len(rows):,} in {done['seconds']:.1f} s")
    return {
        "name": name,
        "title": stage.title,
        "num_before": num_before,
        "num_after": len(rows),
        "num_changed": num_changed,
        "reasons": dict(reasons.most_common()),
        "examples": examples,
        "seconds": done["seconds"],
        "failures": done["failures"],
    }


def _counted(decisions: Iterator[Decision], rows: Survivors) -> tuple[Counter[str], dict[str, list[Any]], int]:
    """How often each reason occurs, with the first rows of each, and how many rows were changed."""
    reasons: Counter[str] = Counter()
    examples: dict[str, list[Any]] = {}
    num_changed = 0
    for each in decisions:
        if each.reason is None:
            num_changed += 1
            continue
        reasons[each.reason] += 1
        shown = examples.setdefault(each.reason, [])
        if len(shown) < NUM_EXAMPLES:
            row = rows[each.row]
            shown.append({"place": row.place, "question": row.question[:500], "evidence": each.evidence[:500]})
    return reasons, examples, num_changed


# --- What goes in -------------------------------------------------------------------------------------------------


def _read(table: InputTable, space: Workspace, notify: Callable[[str], None]) -> dict[str, Any]:
    """Reads the input, once; what cannot be read is kept in rejected.jsonl with its place and reason."""
    files = {path: _file_digest(Path(path)) for path in matching(table.path)}
    key = _digest("read", table.model_dump(mode="json"), files)
    if (done := space.finished(NOT_READ, key)) and (space.folder / "rows.arrow").exists():
        return done
    started = time.monotonic()
    rejected: list[dict[str, str]] = []
    with (space.folder / "rejected.jsonl").open("w") as out:

        def reject(where: str, error: InvalidInputError) -> None:
            one = {"place": where, "reason": str(error)}
            out.write(json.dumps(one, ensure_ascii=False) + "\n")
            rejected.append(one)

        num_rows = space.write_rows(_rows(table, list(files), reject))
    if not num_rows:
        raise InvalidInputError(
            f"none of the {len(rejected)} rows can be used; the first: {rejected[0]['reason']}"
            if rejected
            else f"there are no rows in {', '.join(files)}"
        )
    done = {
        "key": key,
        "files": files,
        "num_rows": num_rows,
        "num_rejected": len(rejected),
        "rejected": rejected[:NUM_REJECTED_SHOWN],
        "seconds": round(time.monotonic() - started, 2),
    }
    space.write_decisions(NOT_READ, [])
    space.finish(NOT_READ, done)
    notify(f"read: {num_rows:,} rows, {len(rejected):,} that cannot be used, in {done['seconds']:.1f} s")
    return done


def _rows(table: InputTable, paths: list[str], reject: Callable[[str, InvalidInputError], None]) -> Iterator[Row]:
    number = 0
    for path in paths:
        for where, row in rows_of(path, table.format):
            try:
                if isinstance(row, InvalidInputError):
                    raise row
                yield Row(
                    number,
                    where,
                    text_of(value_at(row, table.question, where), where, table.question),
                    text_of(value_at(row, table.answer, where), where, table.answer),
                    {key: label_of(value_at(row, key, where), where, key) for key in table.labels},
                )
            except InvalidInputError as error:
                reject(where, error)
            else:
                number += 1


# --- What comes out -----------------------------------------------------------------------------------------------


def _write_prompts(rows: Survivors, path: Path) -> int:
    num_kept = 0
    with path.open("w", encoding="utf-8") as out:
        for row in rows:
            line = {"question": row.question, "answer": row.answer, **row.labels, "place": row.place}
            out.write(json.dumps(line, ensure_ascii=False) + "\n")
            num_kept += 1
    return num_kept


def _digest(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
