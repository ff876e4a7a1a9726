"""Questions of several kinds about scenes of coloured shapes: counting, colours, positions and relations in turn.

question   Which colour is the square? End with answer: and a colour.
response   a1 none b1 red circle a2 blue square b2 none answer: blue
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any

from perilune.tasks import colours, counting, drawn, positions, relations

if TYPE_CHECKING:
    from PIL.Image import Image

KINDS: dict[str, Any] = {"counting": counting, "colours": colours, "positions": positions, "relations": relations}
VOCABULARY = tuple(dict.fromkeys(word for kind in KINDS.values() for word in kind.VOCABULARY))


@dataclass(frozen=True)
class Problem:
    """A problem of one of the kinds."""

    kind: str
    inner: Any

    @property
    def answer(self) -> str:
        """The reference answer."""
        return str(self.inner.answer)

    @property
    def labels(self) -> dict[str, str]:
        """Its kind, and its difficulty: the number of things."""
        return dict(self.inner.labels)


def problem(
    seed: int,
    index: int,
    *,
    held_out: bool = False,
    kinds: str = " ".join(KINDS),
    max_things: int = 4,
    side: int = drawn.SIDE,
    cell: int = drawn.CELL,
) -> Problem:
    """Problem `index` of the endless set `seed`, of one of `kinds`, a text of names. ValueError: no such options."""
    names = drawn.names_of(kinds, KINDS)
    kind = Random(f"kind/{seed}/{index}").choice(names)
    made = KINDS[kind].problem(seed, index, held_out=held_out, max_things=max_things, side=side, cell=cell)
    return Problem(kind, made)


def question(problem: Problem) -> str:
    """Words the problem as a prompt."""
    return str(KINDS[problem.kind].question(problem.inner))


def draw(problem: Problem) -> Image:
    """The picture that the question is about."""
    return problem.inner.scene.draw()


def trace(problem: Problem, rng: Random, *, looks: float = drawn.DEFAULT_LOOKS) -> str:
    """A warm-up response (k1.5 §2.2)."""
    return str(KINDS[problem.kind].trace(problem.inner, rng, looks=looks))
