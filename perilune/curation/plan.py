"""A curation's plan: what is read, the stages with their keys, what is written. One TOML file, or the defaults."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from perilune.curation.reading import InputTable
from perilune.curation.stages import STAGES
from perilune.curation.stages.stage import Stage
from perilune.errors import InvalidInputError
from perilune.recipe.overrides import apply_override

P = TypeVar("P", bound=BaseModel)


class PlanBase(BaseModel):
    """Describes what every plan has beside its stages."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    input: InputTable

    def stages(self) -> dict[str, Stage]:
        """The stages with their keys, in their order."""
        return {name: getattr(self, name) for name in STAGES}


Plan: type[PlanBase] = create_model(
    "Plan", __base__=PlanBase, **{name: (kind, kind()) for name, kind in STAGES.items()}
)  # type: ignore[call-overload]


def read_plan(source: Path, overrides: list[str]) -> PlanBase:
    """A curation's plan; errors as `read_as`."""
    return read_as(Plan, source, overrides)


def read_as(kind: type[P], source: Path, overrides: list[str]) -> P:
    """A plan of a kind from a TOML file, or the default plan for a file of rows, or for a dataset.

    InvalidInputError: no such file, no TOML, or wrong keys, each named.
    """
    document: dict[str, Any] = _document(source) if source.suffix == ".toml" else {"input": _input_of(source)}
    for each in overrides:
        apply_override(document, each, kind)
    try:
        return kind.model_validate(document)
    except ValidationError as error:
        wrong = "\n".join(f"  {'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
        raise InvalidInputError(f"{source} has mistakes:\n{wrong}") from error


def _input_of(source: Path) -> dict[str, str]:
    """A file of rows; or a dataset: a folder, or a name such as owner/name of which there is no file."""
    is_name = not source.exists() and len(source.parts) == 2 and not source.suffix
    return {"dataset": str(source)} if source.is_dir() or is_name else {"path": str(source)}


def _document(source: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(source.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InvalidInputError(f"cannot read the plan {source}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"{source} is no valid TOML: {error}") from error
