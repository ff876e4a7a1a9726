"""Inputs made of examples, for problems without a generator: values of the same types, of each kind.

The method is EvalPlus's type-aware mutation (Liu et al. 2023, §2.2). A function's arguments are mutated as values, an
input of stdin word by word where the words are numbers. Adversarial inputs keep an example's form and change its order
and ties: sorted, reversed, all the same. Nothing here knows the problem's constraints: the validator does, or the
submissions, which must agree.
"""

from __future__ import annotations

import json
import re
import string
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from perilune.testgen.problem import ADVERSARIAL, EXTREME, RANDOM, SMALL

_INTEGER = re.compile(rb"[+-]?\d+")
_SMALL = (0, 1, 2, -1, 3)
_EXTREME = (0, 1, -1, 1000, -1000, 10**6, 2**31 - 1, -(2**31))
_CHARS = string.ascii_lowercase + string.ascii_uppercase + string.digits + " "
MAX_ITEMS = 60  # of a list or a text that is made longer


def mutated(examples: Sequence[bytes], kind: str, rng: Random, *, is_function: bool) -> bytes:
    """One input of a kind, made of one of the examples."""
    example = rng.choice(examples)
    if not is_function and kind == ADVERSARIAL:
        return b"\n".join(_rearranged(line, rng) for line in example.split(b"\n"))
    if not is_function:
        return _INTEGER.sub(lambda found: str(_number(int(found[0]), kind, rng)).encode(), example)
    pool = [value for arguments in map(json.loads, examples) for value in _leaves(arguments)]
    arguments = json.loads(example)
    changed = [_mutated(argument, kind, rng, pool) if rng.random() < 0.8 else argument for argument in arguments]
    return json.dumps(changed).encode()


def _rearranged(line: bytes, rng: Random) -> bytes:
    """A line with a list of numbers in another order or with ties; other lines, which may count them, stay."""
    numbers = line.split()
    if len(numbers) < 3 or not all(_INTEGER.fullmatch(number) for number in numbers):
        return line
    values = [int(number) for number in numbers]
    changes: Sequence[Callable[[], list[int]]] = (
        lambda: sorted(values),
        lambda: sorted(values, reverse=True),
        lambda: [rng.choice(values)] * len(values),
        lambda: rng.choices(values[:2], k=len(values)),
        lambda: rng.sample(values, len(values)),
        lambda: [value + rng.choice((-1, 0, 1)) for value in values],
        lambda: [*values[1:], values[0]],
    )
    return b" ".join(str(value).encode() for value in rng.choice(changes)())


def _leaves(value: Any) -> list[Any]:
    if isinstance(value, list):
        return [leaf for item in value for leaf in _leaves(item)]
    return [value]


def _mutated(value: Any, kind: str, rng: Random, pool: Sequence[Any]) -> Any:
    """A value of the same type. Those of other examples are taken too, for they carry the problem's words."""
    alike = [leaf for leaf in pool if type(leaf) is type(value)]
    if alike and rng.random() < 0.25:
        return rng.choice(alike)
    match value:
        case bool():
            return not value
        case int():
            return _number(value, kind, rng)
        case float():
            return _float(value, kind, rng)
        case str():
            return _text(value, kind, rng, alike)
        case list():
            return _list(value, kind, rng, pool)
        case dict():
            return {key: _mutated(item, kind, rng, pool) for key, item in value.items()}
    return value


def _number(value: int, kind: str, rng: Random) -> int:
    if kind == SMALL:
        return rng.choice(_SMALL)
    if kind == EXTREME and rng.random() < 0.5:
        return rng.choice(_EXTREME)
    near = value + rng.choice((-2, -1, 1, 2))
    if kind == ADVERSARIAL:
        return rng.choice((near, value - 1, value + 1, -value))
    return rng.choice((near, rng.randint(-abs(value) - 5, 2 * abs(value) + 5), rng.randint(0, 2 * abs(value) + 20)))


def _float(value: float, kind: str, rng: Random) -> float:
    if kind == SMALL:
        return float(rng.choice(_SMALL))
    scale = 100.0 if kind == EXTREME else 1.0
    return round(rng.choice((value + rng.uniform(-1, 1), rng.uniform(-10, 10) * scale, value * 2)), 3)


def _text(value: str, kind: str, rng: Random, alike: Sequence[str]) -> str:
    if kind == SMALL:
        return value[: rng.randint(0, 2)]
    chars = "".join(dict.fromkeys("".join(alike))) or _CHARS
    if kind == ADVERSARIAL:
        return rng.choice((value + value[::-1], value[:1] * len(value), "".join(sorted(value)), value[::-1], value * 2))
    changes: Sequence[Callable[[], str]] = (
        lambda: value[::-1],
        lambda: value + rng.choice(chars),
        value.swapcase,
        lambda: (value * (MAX_ITEMS // max(1, len(value))))[:MAX_ITEMS] if kind == EXTREME else value * 2,
        lambda: "".join(rng.sample(value, len(value))),
        lambda: rng.choice(chars) * rng.randint(1, 12),
        lambda: "".join(rng.choices(chars, k=rng.randint(1, 12))),
        lambda: value[: len(value) // 2] + rng.choice(chars) + value[len(value) // 2 :],
        lambda: " ".join((value, rng.choice(alike) if alike else value)),
        lambda: "".join(rng.choices(_CHARS, k=rng.randint(1, 12))),
    )
    return rng.choice(changes)()[: 4 * MAX_ITEMS]


def _list(value: list[Any], kind: str, rng: Random, pool: Sequence[Any]) -> list[Any]:
    if not value:
        return value
    if kind == SMALL:
        return [_mutated(item, rng.choice((SMALL, RANDOM)), rng, pool) for item in value[: rng.randint(0, 3)]]
    some = value[rng.randrange(len(value))]
    changes: Sequence[Callable[[], list[Any]]] = (
        lambda: [_mutated(item, kind, rng, pool) for item in value],
        lambda: [_mutated(rng.choice(value), kind, rng, pool) for _ in range(rng.randint(1, 10))],
        lambda: value[::-1],
        lambda: sorted(value, key=repr),
        lambda: [*value, some],
        lambda: [item for item in value for _ in range(2)],
        lambda: [some] * rng.randint(1, 8),
        lambda: [*value, _mutated(some, kind, rng, pool)],
        lambda: [item if rng.random() < 0.6 else _mutated(item, kind, rng, pool) for item in value],
    )
    if kind == ADVERSARIAL:
        ordered = sorted(value, key=lambda item: (str(type(item)), item if isinstance(item, (int, float, str)) else 0))
        return rng.choice((ordered, ordered[::-1], [some] * len(value), [*value, some], [*value, *value], value[::-1]))
    if kind == EXTREME and rng.random() < 0.5:
        return [_mutated(rng.choice(value), kind, rng, pool) for _ in range(MAX_ITEMS)]
    return rng.choice(changes)()
