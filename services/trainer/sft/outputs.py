"""Says what a fine-tuning leaves on disk: metrics, answers, rows left out, checkpoints, the model.

Whatever is written appears whole or not at all; what lines say more than the progress that is gone on from is cut off.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from perilune.data.whole_files import write_whole
from perilune.errors import StateError
from perilune.sft.folder import SftFolder
from perilune.sft.plan import SftPlan
from perilune.stats import finite
from perilune.weights.adapted import CONFIG_FILE
from perilune.weights.store import ADAPTER_FILE
from services.trainer.policy.adapter import factors, merged_state
from services.trainer.policy.model import Policy
from services.trainer.stages.progress import Progress, ProgressFile
from services.trainer.stages.runner import StageStep
from services.trainer.versions.adapter_version import peft_config
from services.trainer.versions.checkpoint import flush

NUM_CHECKPOINTS = 2  # newest ones that are kept


@contextmanager
def naming_disk(path: Path) -> Iterator[None]:
    """StateError that says what to do, for a file that cannot be written."""
    try:
        yield
    # OSError, and what torch and safetensors make of one: no room, no right, no disk.
    except (OSError, RuntimeError, SafetensorError) as error:
        raise StateError(
            f"cannot write {path}: {error}; make room for it: the same command goes on from the last checkpoint"
        ) from error


class Lines:
    """Metrics and answers as lines of JSON."""

    def __init__(self, folder: SftFolder) -> None:
        self._folder = folder

    def cut(self, stage: int, step: int) -> None:
        """Leaves out what was written after a step, which will be taken again."""
        for path in (self._folder.metrics, self._folder.generated):
            lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
            kept = [line for line in lines if (place := _place(line)) and place <= (stage, step)]
            with naming_disk(path):
                path.write_bytes(b"".join(kept))

    def __call__(self, step: StageStep) -> None:
        """Writes a step."""
        place = {"stage": step.index, "step": step.step}
        _append(self._folder.metrics, [{**place, **finite(step.metrics)}])
        _append(self._folder.generated, [{**place, **vars(each)} for each in step.generated])


def _place(line: bytes) -> tuple[int, int] | None:
    """Stage and step of a line; None of half a line."""
    try:
        row = json.loads(line)
        return row["stage"], row["step"]
    except (ValueError, KeyError, TypeError):
        return None


def _append(path: Path, rows: list[dict[str, Any]]) -> None:
    with naming_disk(path), path.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


class LeftOutRows:
    """Rows that are not learnt from, as lines of JSON; of all stages, from the start on."""

    def __init__(self, folder: SftFolder) -> None:
        self._path = folder.left_out
        self._path.unlink(missing_ok=True)

    def of_stage(self, index: int) -> Callable[[str, str, str], None]:
        """Writes a row of a stage: where it lies, the kind of reason, the reason."""
        return lambda where, kind, reason: _append(
            self._path, [{"stage": index, "where": where, "kind": kind, "reason": reason}]
        )


class Checkpoints(ProgressFile):
    """The progress of the stages, and with each a model folder that others can load."""

    def __init__(self, folder: SftFolder, policy: Policy, lines: Lines) -> None:
        super().__init__(folder.progress, folder.start)
        self._folder, self._policy, self._lines = folder, policy, lines

    def save(self, progress: Progress) -> None:
        """Writes both. StateError: they cannot be written; what was there before stays."""
        super().save(progress)
        target = self._folder.checkpoints / f"stage-{progress.index}-step-{progress.step:06d}"
        save_model(self._policy, target)
        for old in sorted(self._folder.checkpoints.glob("stage-*"), key=_age)[:-NUM_CHECKPOINTS]:
            shutil.rmtree(old, ignore_errors=True)

    def load(self) -> Progress | None:
        """Returns what is gone on from; metrics and answers are cut to it."""
        progress = super().load()
        self._lines.cut(*(progress.index, progress.step) if progress else (0, 0))
        return progress


def _age(folder: Path) -> tuple[int, ...]:
    return tuple(int(part) for part in folder.name.split("-") if part.isdigit())


def save_model(policy: Policy, target: Path) -> None:
    """Writes a Hugging Face model folder with tokenizer and template; an adapter is merged into it. StateError."""
    temporary = target.with_name(f"{target.name}.writing")
    with naming_disk(target):
        for leftover in (temporary, target):
            shutil.rmtree(leftover, ignore_errors=True)
        temporary.mkdir(parents=True)
        policy.save(temporary, _weights(policy))
        for file in [*temporary.iterdir(), temporary]:
            flush(file)
        temporary.rename(target)


def _weights(policy: Policy) -> Mapping[str, Tensor] | None:
    return merged_state(policy.model) if factors(policy.model) else None


def save_adapter(policy: Policy, plan: SftPlan, folder: SftFolder) -> None:
    """Writes the adapter as PEFT loads it. StateError."""
    assert plan.trainer.adapter  # or there is none
    with naming_disk(folder.adapter):
        folder.adapter.mkdir(exist_ok=True)
        (folder.adapter / CONFIG_FILE).write_bytes(peft_config(plan.trainer.adapter, plan.model.path or ""))
        tensors = {name: tensor.cpu().contiguous() for name, tensor in factors(policy.model).items()}
        safetensors.torch.save_file(tensors, folder.adapter / ADAPTER_FILE)


def save_report(folder: SftFolder, report: Mapping[str, Any]) -> None:
    """Writes the report. StateError."""
    write_whole(folder.report, (json.dumps(report, ensure_ascii=False, indent=2) + "\n").encode())
