"""The folder that a fine-tuning writes: what it was asked for, what it said on its way, and what it made."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perilune.data.files import matching
from perilune.data.jsonlines import open_file
from perilune.errors import AlreadyExistsError, NotFoundError, StateError
from perilune.sft.plan import SftPlan

PART_BYTES = 1 << 20  # of a file that is read to be digested


@dataclass(frozen=True)
class SftFolder:
    """The paths of a fine-tuning's folder."""

    path: Path

    @property
    def plan(self) -> Path:
        """The plan as it was settled, and the digests of the files that it names."""
        return self.path / "plan.json"

    @property
    def metrics(self) -> Path:
        """A line of JSON a step."""
        return self.path / "metrics.jsonl"

    @property
    def generated(self) -> Path:
        """Answers to held-out prompts, a line of JSON each."""
        return self.path / "generated.jsonl"

    @property
    def left_out(self) -> Path:
        """Rows that are not learnt from, a line of JSON each, with the reason."""
        return self.path / "left_out.jsonl"

    @property
    def progress(self) -> Path:
        """Returns what it takes to go on; removed at the end."""
        return self.path / "progress.pt"

    @property
    def checkpoints(self) -> Path:
        """Model folders on the way."""
        return self.path / "checkpoints"

    @property
    def model(self) -> Path:
        """The model that was made."""
        return self.path / "model"

    @property
    def adapter(self) -> Path:
        """The adapter that was trained, as PEFT has it, where only that was."""
        return self.path / "adapter"

    @property
    def report(self) -> Path:
        """Returns what there is to say at the end; its presence says that all is done."""
        return self.path / "report.json"

    @property
    def start(self) -> str:
        """A digest of the plan and of its files."""
        return hashlib.sha256(self.plan.read_bytes()).hexdigest()

    def read_plan(self) -> SftPlan:
        """The plan that the folder was made for."""
        return SftPlan.model_validate(json.loads(self.plan.read_text(encoding="utf-8"))["plan"])


def open_folder(path: Path, plan: SftPlan) -> SftFolder:
    """Makes the folder for a plan, or takes up the one that was made for it.

    Raises:
        AlreadyExistsError: it is another's.
        NotFoundError, InvalidInputError: a file that the plan names cannot be read.
        StateError: it cannot be written.
    """
    folder, asked = SftFolder(path), _document(plan)
    if folder.plan.is_file():
        found = json.loads(folder.plan.read_text(encoding="utf-8"))
        if changed := next(_differences(found, asked), None):
            raise AlreadyExistsError(f"{path} was made with another {changed}; name another folder, or remove it")
        return folder
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise AlreadyExistsError(f"{path} exists already, and not from this command; name a new folder")
    try:
        path.mkdir(parents=True, exist_ok=True)
        folder.plan.write_text(json.dumps(asked, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise StateError(f"cannot write {path}: {error.strerror}") from error
    return folder


def _document(plan: SftPlan) -> dict[str, Any]:
    paths = [path for stage in plan.stages for path in (*stage.path, *(stage.heldout_path or ()))]
    inputs = {path: _digest(Path(path)) for path in matching(paths)}
    return {"plan": plan.model_dump(mode="json"), "inputs": inputs}


def _digest(path: Path) -> str:
    """The digest of a file, or of all files of a folder."""
    if not path.exists():
        raise NotFoundError(f"cannot read {path}: No such file or directory")
    files = sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]
    found = hashlib.sha256()
    for file in files:
        with open_file(file) as stream:
            while part := stream.read(PART_BYTES):
                found.update(part)
    return found.hexdigest()


def _differences(found: Any, asked: Any, key: str = "") -> Iterator[str]:
    """The keys at which two documents differ."""
    if isinstance(found, dict) and isinstance(asked, dict):
        for name in dict.fromkeys([*asked, *found]):
            yield from _differences(found.get(name), asked.get(name), f"{key}.{name}" if key else name)
    elif isinstance(found, list) and isinstance(asked, list) and len(found) == len(asked):
        for place, (left, right) in enumerate(zip(found, asked, strict=True)):
            yield from _differences(left, right, f"{key}.{place}")
    elif found != asked:
        yield f"{key.removeprefix('plan.')}: {found!r:.80} and not {asked!r:.80}"
