"""Says what every table of a recipe is made of: checked when it is read, frozen, no key that it does not know."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, NonNegativeFloat, PositiveFloat

__all__ = [
    "ArgumentName", "NonNegativeFloat", "NonNegativeInt", "NumGenerated", "Options", "Paths", "PositiveFloat",
    "PositiveInt", "Share", "Table",
]  # fmt: skip

PositiveInt = Annotated[int, Field(gt=0, lt=2**31)]  # what messages carry
NonNegativeInt = Annotated[int, Field(ge=0, lt=2**31)]
NumGenerated = Annotated[int, Field(gt=0, le=1_000_000)]  # prompts of a generator: an epoch of them is shuffled at once
Share = Annotated[float, Field(ge=0, le=1)]
Options = dict[str, str | int | float | bool]
Paths = Annotated[
    list[str], BeforeValidator(lambda value: [value] if isinstance(value, str) else value), Field(min_length=1)
]
ArgumentName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]


class Table(BaseModel):
    """Base of a recipe's tables: unknown keys, infinities and NaN are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
