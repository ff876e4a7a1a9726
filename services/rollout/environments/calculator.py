"""A calculator: the policy writes `calc 17 * 23 =`, and the number follows. Needs nothing and keeps nothing."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Sequence

from perilune.api.trajectory.v1.trajectory_pb2 import Prompt
from perilune.recipe import CalculatorEnvironment
from services.rollout.config import RolloutSettings
from services.rollout.environments.base import Observation

MAX_CHARS = 200  # of an expression
OPERATORS: dict[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
}


class Calculator:
    """See `services.rollout.environments.base.Environment`."""

    def __init__(self, settings: RolloutSettings, table: CalculatorEnvironment) -> None:
        self._call, self._end, self._error = table.call, table.end, table.error

    @property
    def stop(self) -> tuple[str, ...]:
        """Texts that end a turn."""
        return (self._end,)

    async def reset(self, prompt: Prompt, turns: Sequence[str]) -> None:
        """Needs nothing: each expression stands for itself."""

    async def step(self, action: str) -> Observation:
        """The value of what stands between the last `call` and the last `end`, with a space before it."""
        asked = action.rpartition(self._end)[0].rpartition(self._call)[2].strip()
        try:
            return Observation(f" {evaluate(asked)}")
        except (ValueError, SyntaxError):
            return Observation(f" {self._error}")

    async def close(self) -> None:
        """Holds nothing."""


def evaluate(expression: str) -> int:
    """The value of sums, differences and products of whole numbers. ValueError or SyntaxError for anything else."""
    if len(expression) > MAX_CHARS:
        raise ValueError("the expression is too long")
    return _value(ast.parse(expression, mode="eval").body)


def _value(node: ast.expr) -> int:
    match node:
        case ast.Constant(value=int(number)) if not isinstance(number, bool):
            return number
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATORS:
            return OPERATORS[type(op)](_value(left), _value(right))
    raise ValueError("no sum, difference or product of whole numbers")
