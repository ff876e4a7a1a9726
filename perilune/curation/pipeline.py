"""A curation from its input to its prompt set: stage by stage, what was finished before is taken as it is."""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from perilune.completions import Cache
from perilune.curation.images import ImageStore
from perilune.curation.plan import PlanBase
from perilune.curation.reading import InputTable, file_digest, input_digests, read_rows
from perilune.curation.stages.stage import Stage, Tools
from perilune.curation.workspace import Decision, Row, Survivors, Workspace, replacing
from perilune.errors import InvalidInputError

NUM_EXAMPLES = 5  # of each reason, in the report
NUM_REJECTED_SHOWN = 20
NOT_READ = "read"
LIBRARIES = ("datasketch", "numpy", "pyarrow", "datasets", "pillow", "transformers")


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
    cache = Cache(folder / "answers.sqlite")
    tools = Tools(notify, reward_address, cache)
    steps: list[dict[str, Any]] = []
    files, keys = dict(read["files"]), {NOT_READ: read["key"]}
    key = read["key"]
    with contextlib.closing(cache):
        for name, stage in plan.stages().items():
            given = {} if stage.off() else stage.inputs()
            files |= given
            key = keys[name] = _digest(key, name, stage.model_dump(mode="json"), given)
            steps.append(_step(name, stage, rows, space, key, tools))
    num_kept = _write_prompts(rows, folder / "prompts.jsonl")
    manifest = _manifest(plan, files, keys, folder)
    report = {
        "plan": manifest["settings"],
        "input": read,
        "stages": steps,
        "num_kept": num_kept,
        "num_failed": sum(len(step.get("failures", ())) for step in steps),
        "digest": manifest["results"]["prompts.jsonl"],
        "version": manifest["code"]["perilune"],
    }
    for name, content in (("manifest.json", manifest), ("report.json", report)):
        with replacing(folder / name) as path:
            path.write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")
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
        tools.facts.clear()
        space.write_decisions(name, stage.decide(rows, tools))
        done = {"key": key, "seconds": round(time.monotonic() - started, 2), "failures": list(tools.failures)}
        done["facts"] = dict(tools.facts)
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
        "facts": done["facts"],
    }


def _counted(decisions: Iterator[Decision], rows: Survivors) -> tuple[Counter[str], dict[str, list[Any]], int]:
    """Returns how often each reason occurs, with the first rows of each, and how many rows were changed."""
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
    files = input_digests(table)
    key = _digest("read", CODE, table.model_dump(mode="json"), files)
    if (done := space.finished(NOT_READ, key)) and (space.folder / "rows.arrow").exists():
        return done
    started = time.monotonic()
    rejected: list[dict[str, str]] = []
    num_rejected = 0
    with replacing(space.folder / "rejected.jsonl") as path, path.open("w", encoding="utf-8") as out:

        def reject(where: str, error: InvalidInputError) -> None:
            nonlocal num_rejected
            num_rejected += 1
            one = {"place": where, "reason": str(error)}
            out.write(json.dumps(one, ensure_ascii=False) + "\n")
            if len(rejected) < NUM_REJECTED_SHOWN:
                rejected.append(one)

        num_rows = space.write_rows(read_rows(table, ImageStore(space.folder / "images"), reject))
    if not num_rows:
        raise InvalidInputError(
            f"none of the {num_rejected} rows can be used; the first: {rejected[0]['reason']}"
            if rejected
            else f"there are no rows in {', '.join(files)}"
        )
    done = {
        "key": key,
        "files": files,
        "num_rows": num_rows,
        "num_rejected": num_rejected,
        "rejected": rejected,
        "seconds": round(time.monotonic() - started, 2),
    }
    space.write_decisions(NOT_READ, [])
    space.finish(NOT_READ, done)
    notify(f"read: {num_rows:,} rows, {num_rejected:,} that cannot be used, in {done['seconds']:.1f} s")
    return done


# --- What comes out -----------------------------------------------------------------------------------------------


def _write_prompts(rows: Survivors, path: Path) -> int:
    num_kept = 0
    with replacing(path) as part, part.open("w", encoding="utf-8") as out:
        for row in rows:
            line = {"question": _with_images(row), "answer": row.answer, **row.labels, "place": row.place}
            out.write(json.dumps(line, ensure_ascii=False) + "\n")
            num_kept += 1
    return num_kept


def _with_images(row: Row) -> str | list[dict[str, Any]]:
    """A question as `[prompts]` reads it: text, or a message whose parts are pictures and text."""
    if not row.images:
        return row.question
    pictures = [{"type": "image", "digest": digest, "media_type": media_type} for digest, media_type in row.images]
    return [{"role": "user", "content": [*pictures, {"type": "text", "text": row.question}]}]


def _manifest(plan: PlanBase, files: Mapping[str, str], stages: Mapping[str, str], folder: Path) -> dict[str, Any]:
    """Returns what the set was made of and by: digests of inputs, settings, code and results."""
    settings = plan.model_dump(mode="json")
    made = [folder / name for name in ("prompts.jsonl", "rejected.jsonl")]
    return {
        "inputs": dict(files),
        "settings": settings,
        "settings_sha256": _digest(settings),
        "code": {"perilune": metadata.version("perilune"), "curation_sha256": CODE, "libraries": _libraries()},
        "stages": dict(stages),  # a digest of all that each stage was decided from
        "results": {path.name: file_digest(path) for path in made},
    }


def _libraries() -> dict[str, str]:
    found = {}
    for name in LIBRARIES:
        with contextlib.suppress(metadata.PackageNotFoundError):  # an optional one
            found[name] = metadata.version(name)
    return found


def _code_digest() -> str:
    """The SHA-256 of curation's own code: another version decides again, since it may decide otherwise."""
    whole = hashlib.sha256()
    folder = Path(__file__).parent
    for path in sorted(folder.rglob("*.py")):
        whole.update(f"{path.relative_to(folder)} {file_digest(path)}\n".encode())
    return whole.hexdigest()


def _digest(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


CODE = _code_digest()
